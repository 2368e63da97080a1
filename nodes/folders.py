"""Where files of models are, and which files there are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import folder_paths

ADAPTERS = "ipadapter"
ENCODERS = "clip_vision"


def register() -> None:
    """Make `models/ipadapter` known to ComfyUI, beside any folder that its extra paths name."""
    folder_paths.add_model_folder_path(ADAPTERS, str(Path(folder_paths.models_dir, ADAPTERS)))


def adapter_files() -> list[str]:
    return [name for name in folder_paths.get_filename_list(ADAPTERS) if not Path(name).name.startswith(".")]


def encoder_files() -> list[str]:
    """Files in the encoders' folders, and folders there that transformers wrote (they end with a slash)."""
    folders = [
        f"{config.parent.relative_to(root).as_posix()}/"
        for root in map(Path, folder_paths.get_folder_paths(ENCODERS))
        for config in sorted(root.rglob("config.json"))
        if config.parent != root
    ]
    return folder_paths.get_filename_list(ENCODERS) + folders


def path_of(kind: str, name: str) -> Path:
    """The path of a listed file or folder. Raises ValueError that names the folders searched and the files seen."""
    roots = folder_paths.get_folder_paths(kind)
    for root in roots:
        path = Path(root, name)
        # A name from a graph must not lead out of the folders (links in them may: people keep models elsewhere).
        if path.exists() and ".." not in path.parts and path.is_relative_to(root):
            return path
    seen = ", ".join(folder_paths.get_filename_list(kind)[:10]) or "none"
    raise ValueError(f"{name!r} was not found in {' or '.join(roots)} (files there: {seen}): put the file there")


def state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file, or a file in a folder, changes: names, times and sizes."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())


def fingerprint(path: Path) -> str:
    """A digest of `state`. ComfyUI writes what a node's fingerprint is into saved pictures: no path goes there."""
    return hashlib.sha256(repr(state(path)).encode()).hexdigest()
