"""Whether a base's folder is whole, looked at part by part before anything is loaded; the file at fault is named."""

from __future__ import annotations

import re
from pathlib import Path

import safetensors

from ..settings.read import read_object
from .files import BaseFiles

# A part's folder and what its weights are called.
WEIGHTS = {
    "unet": ("diffusion_pytorch_model",),
    "vae": ("diffusion_pytorch_model",),
    "text_encoder": ("model", "pytorch_model"),
    "text_encoder_2": ("model", "pytorch_model"),
}
ENDINGS = (".safetensors", ".bin")
TOKENIZER = "tokenizer.json", "vocab.json", "merges.txt"
POINTER = b"version https://git-lfs"


def check_base(files: BaseFiles, needs_all: bool = True) -> None:
    """Raises ValueError for the first part of a base that is missing, broken or cut off.

    needs_all: False where a cache stands for autoencoder and text encoders, which need not be there then.
    """
    if files.path.is_file():
        check_weights(files.path)
    if files.model.vae:
        _check_vae(Path(files.model.vae))
    has_two = files.unet_config.get("addition_embed_type") == "text_time"  # SDXL's kind
    files.scheduler_config()
    if not files.path.is_dir():
        files.check_tensors()
        return
    folder, variant = files.path, files.model.variant
    encoders = ["text_encoder", "text_encoder_2"] if has_two else ["text_encoder"]
    parts = ["unet"] + (["vae"] if needs_all and not files.model.vae else []) + (encoders if needs_all else [])
    for part in parts:
        _check_part(folder, part, variant)
    for part in encoders if needs_all else ():
        _check_tokenizer(folder / part.replace("text_encoder", "tokenizer"))
    assert files.vae_config is not None


def _check_vae(path: Path) -> None:
    """An autoencoder of its own: a folder or a file."""
    if not path.exists():
        raise ValueError(f"there is no autoencoder {path}: give a diffusers folder or a file in model.vae")
    if path.is_dir():
        _check_part(path.parent, path.name, "", WEIGHTS["vae"])
    else:
        check_weights(path)


def _check_part(folder: Path, part: str, variant: str, names: tuple[str, ...] | None = None) -> None:
    place = folder / part
    if not place.is_dir():
        raise ValueError(f"{folder} has no folder {part}: the base is not whole, download it again")
    if not (place / "config.json").is_file():
        raise ValueError(f"{place} has no config.json: the base is not whole, download it again")
    read_object(place / "config.json")
    names = names or WEIGHTS[part]
    wanted = [f"{name}{f'.{variant}' if variant else ''}{ending}" for ending in ENDINGS for name in names]
    for name in wanted:
        if (place / name).is_file():
            check_weights(place / name)
            return
        stem, _, ending = name.rpartition(".")
        plain = stem.removesuffix(f".{variant}") if variant else stem
        indices = {f"{name}.index.json", f"{plain}.{ending}.index.{variant}.json" if variant else f"{name}.index.json"}
        for index in indices:
            if (place / index).is_file():
                _check_parted(place / index)
                return
    raise ValueError(_no_weights(place, wanted, variant))


def _no_weights(place: Path, wanted: list[str], variant: str) -> str:
    there = sorted(file.name for file in place.iterdir() if file.suffix in ENDINGS)
    if not there:
        return f"{place} has no weights (no {wanted[0]}): the base is not whole, download it again"
    named = sorted({found[1] for name in there if (found := re.fullmatch(r"[^.]+\.([^.]+)\.\w+", name))})
    advice = "download the others, or clear model.variant" if variant else "download it again"
    if named and not variant:
        advice = f"set model.variant to {' or '.join(named)}"
    return f"{place} has no {wanted[0]}, only {', '.join(there[:3])}: {advice}"


def _check_parted(index: Path) -> None:
    """Weights in several files."""
    files = read_object(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ValueError(f"{index} names no files of weights: download it again")
    for name in sorted(set(map(str, files.values()))):
        if not (index.parent / name).is_file():
            raise ValueError(f"{index.parent} has no {name}, which {index.name} names: download it again")
        check_weights(index.parent / name)


def check_weights(path: Path) -> None:
    """Raises ValueError, naming the file, for weights that are a pointer only, empty or cut off; reads no tensor."""
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
        if start == POINTER:
            raise ValueError(
                f"{path} is a pointer of Git LFS, not the weights themselves: git lfs pull, or download it"
            )
        if not start:
            raise ValueError(f"{path} has no bytes: download it again")
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, framework="pt"):
                pass
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut off ({error}): download it again") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}): see its permissions") from error


def _check_tokenizer(folder: Path) -> None:
    whole, words, merges = (folder / name for name in TOKENIZER)
    if not folder.is_dir():
        raise ValueError(f"{folder.parent} has no folder {folder.name}: the base is not whole, download it again")
    if not whole.is_file() and not (words.is_file() and merges.is_file()):
        raise ValueError(
            f"{folder} has no words (no {whole.name}, nor {words.name} with {merges.name}): the texts would all be "
            "one; download the tokenizer again"
        )
    for file in (whole, words):
        if file.is_file():
            read_object(file)
