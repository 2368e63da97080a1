"""Where files of models are, and which files there are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import folder_paths

from ..ipadapter_core.files.folder import is_further_part, is_of_folder

ADAPTERS = "ipadapter"
ENCODERS = "clip_vision"
FACES = "insightface"
PROMPTS = "image_prompts"

_bundled: dict[str, list[Path]] = {}


def register() -> None:
    """Make our folders in `models/` known to ComfyUI, beside any folder that its extra paths name."""
    for kind in (ADAPTERS, FACES, PROMPTS):
        folder_paths.add_model_folder_path(kind, str(Path(folder_paths.models_dir, kind)))


def bundle(kind: str, folder: Path) -> None:
    """Add a folder that comes with the pack: our own lists have its files, last; ComfyUI and other packs do not."""
    if folder not in _bundled.setdefault(kind, []):
        _bundled[kind].append(folder)


def adapter_files() -> list[str]:
    """Files in the adapters' folders; those that come with the pack last."""
    own = [name for name in folder_paths.get_filename_list(ADAPTERS) if not Path(name).name.startswith(".")]
    return own + [name for name in _bundled_names(ADAPTERS, "*.safetensors") if name not in own]


def own_encoder_files() -> list[str]:
    """The user's image encoders: files, then folders that transformers wrote, which end with a slash.

    The weights inside of such a folder are not listed beside it: alone they lack what its config.json tells. Of weights
    in parts without one, the first part stands for all.
    """
    places = {name: _folder_of(name) for name in folder_paths.get_filename_list(ENCODERS)}
    single = [name for name, folder in places.items() if not folder and not is_further_part(Path(name))]
    return single + sorted({folder for folder in places.values() if folder})


def bundled_encoder_files() -> list[str]:
    return [f"{Path(name).parent.as_posix()}/" for name in _bundled_names(ENCODERS, "*/config.json")]


def _folder_of(name: str) -> str:
    """The transformers folder that a listed file is the weights of, with a slash; "" where it is a file by itself."""
    if folder_paths.get_full_path(ENCODERS, name) is None:
        return ""
    return f"{Path(name).parent.as_posix()}/" if encoder_path(name).is_dir() else ""


def _bundled_names(kind: str, pattern: str) -> list[str]:
    return [path.relative_to(root).as_posix() for root in _bundled.get(kind, ()) for path in sorted(root.glob(pattern))]


def prompt_files() -> list[str]:
    return [name for name in folder_paths.get_filename_list(PROMPTS) if not Path(name).name.startswith(".")]


# Where people have a face model, in a folder of its name: insightface's own layout, a flat one, and either of them
# around a zip that was unpacked with its folder.
FACE_LAYOUTS = ("models/{0}", "{0}", "models/{0}/{0}", "{0}/{0}")


def face_model_names() -> list[str]:
    """Folders of face models that are there, in any layout."""
    roots = [Path(root, part) for root in folder_paths.get_folder_paths(FACES) for part in ("models", ".")]
    names = {path.name for root in roots if root.is_dir() for path in root.iterdir() if any(path.glob("*.onnx"))}
    return sorted(names)


def face_model_folder(name: str, files: str) -> Path:
    """The folder of a face model. Raises ValueError that names where it was looked for, and the `files` for there."""
    roots = folder_paths.get_folder_paths(FACES)
    if Path(name).name == name:  # a name from a graph must not lead out of the folders
        for root in roots:
            for layout in FACE_LAYOUTS:
                folder = Path(root, layout.format(name))
                if any(folder.glob("*.onnx")):
                    return folder
    places = " or ".join(str(Path(root, "models", name)) for root in roots)
    raise ValueError(f"the face model {name} was not found: put {files} into {places}")


def path_of(kind: str, name: str) -> Path:
    """The path of a listed file or folder. Raises ValueError that names the folders searched and the files seen."""
    roots = folder_paths.get_folder_paths(kind)
    for root in [*roots, *_bundled.get(kind, ())]:
        path = Path(root, name)
        # A name from a graph must not lead out of the folders (links in them may: people keep models elsewhere).
        if name and path.exists() and ".." not in path.parts and path.is_relative_to(root):
            return path
    seen = ", ".join(folder_paths.get_filename_list(kind)[:10]) or "none"
    raise ValueError(f"{name!r} was not found in {' or '.join(roots)} (files there: {seen}): put the file there")


def encoder_path(name: str) -> Path:
    """The path of a listed image encoder. A transformers folder's weights mean the folder, as older graphs name them.

    Raises ValueError as `path_of` does.
    """
    path = path_of(ENCODERS, name)
    return path.parent if Path(name).parent != Path() and is_of_folder(path) else path


def state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file, or a file in a folder, changes: names, times and sizes."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())


def fingerprint(path: Path) -> str:
    """A digest of `state`. ComfyUI writes what a node's fingerprint is into saved pictures: no path goes there."""
    return hashlib.sha256(repr(state(path)).encode()).hexdigest()
