"""Adapter files: read any published layout into one flat state dict, write safetensors with metadata."""

from __future__ import annotations

import json
import lzma
import os
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from .names import published_names
from .pickled import ExcessError, RefusedError, Weights, check_claims, room_for_names
from .scaled import METADATA, is_scaled, multiplied_out

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
FINITE_PART = 1 << 20  # values
MAX_NESTED = 4  # dictionaries in dictionaries
# What accelerate and others put beside the weights in the folder of a checkpoint.
STATES = (
    "optimizer",
    "scheduler",
    "scaler",
    "sampler",
    "dl_state_dict",
    "random_states",
    "custom_checkpoint",
    "training_args",
)
# Files of other kinds by how they begin: (what it is, what to do).
OTHERS = {
    b"GGUF": ("a GGUF file", "use the .safetensors or .bin file of the same weights"),
    b"\x93NUMPY": ("an array of numpy", "choose a file of named weights, .safetensors or .bin"),
    b"\x89HDF": ("an HDF5 file (of Keras or TensorFlow)", "use the .safetensors or .bin file of the same weights"),
}
MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors format
# What readers of pickles and zips raise on a damaged file, found by cutting files and changing bytes.
DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError,
    struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip

Content = TypeVar("Content")
Value = TypeVar("Value")


@dataclass(frozen=True)
class WeightsFile:
    """A file's tensors by flat name, what its metadata says, and whether values were changed to read them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    is_changed: bool = False


@dataclass(frozen=True)
class ShapesFile:
    """Stand-ins with the shapes of a file's tensors by flat name, and what its metadata says."""

    shapes: dict[str, Weights]
    metadata: dict[str, str] = field(default_factory=dict)


def read_adapter(path: str | os.PathLike[str]) -> WeightsFile:
    """Read an adapter of any published layout, or a trainer's checkpoint, into keys `image_proj.*`, `ip_adapter.*`.

    Raises ValueError as `read_plain_weights` does, and when weights are not finite.
    """
    path = Path(path)
    file = read_plain_weights(path)
    tensors = {name: file.tensors[key] for name, key in _names(path, file.tensors).items()}
    for key, value in tensors.items():
        if not _is_finite(value):
            raise ValueError(f"{path.name} has NaN or infinite weights (in {key}): its training or download failed")
    return replace(file, tensors=tensors)


def read_plain_weights(path: str | os.PathLike[str]) -> WeightsFile:
    """`read_weights`, with weights of 8 bits times the scales that are beside them, in fp32.

    Raises ValueError as `read_weights` does, and for weights that are quantised in another way.
    """
    path = Path(path)
    file = read_weights(path)
    try:
        tensors = multiplied_out(file.tensors, file.metadata)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    metadata = {key: value for key, value in file.metadata.items() if key != METADATA}
    return WeightsFile(tensors, metadata, is_scaled(file.tensors))


def _names(path: Path, keys: Iterable[str]) -> dict[str, str]:
    try:
        return published_names(keys)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _is_finite(value: Tensor) -> bool:
    """In parts, so that a check takes no memory of the file's own size."""
    if not (value.is_floating_point() or value.is_complex()):
        return True
    parts = torch.split(value.reshape(-1), FINITE_PART)
    return all(bool(torch.isfinite(part if part.is_complex() else part.float()).all()) for part in parts)


def read_weights(path: str | os.PathLike[str]) -> WeightsFile:
    """Read named tensors from safetensors or a pickle; the format is recognised by content, not by name.

    Pickles are read with `weights_only`, so no code in them runs.
    Raises ValueError with one sentence when the file is empty, damaged, a web page, or a pickle with code in it.
    """
    path = Path(path)
    return _read_safetensors(path) if has_header(path) else _read_pickle(path)


def read_shapes(path: str | os.PathLike[str]) -> ShapesFile:
    """The shapes of named tensors in flat names, as an adapter's (`read_adapter`), and the metadata; reads no weights.

    Raises ValueError as `read_weights` does, as far as a file's names tell.
    """
    path = Path(path)
    if has_header(path):
        found, metadata = sentences(path, _safetensors_shapes)
    else:
        found, metadata = flattened(sentences(path, check_claims), path, Weights), {}
    return ShapesFile({name: found[key] for name, key in _names(path, found).items()}, metadata)


def has_header(path: Path) -> bool:
    """Whether a file is safetensors, or neither of both. Raises ValueError for what is no file of weights at all."""
    head = head_of(path)
    if not head:
        raise ValueError(f"{path.name} is empty: download it again")
    if _is_safetensors(head):
        return True
    if head.lstrip().startswith(b"<"):
        raise ValueError(f"{path.name} is a web page saved in place of the weights: download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path.name} is a Git LFS pointer, not the weights: fetch the file itself with git lfs pull")
    for begin, (what, action) in OTHERS.items():
        if head.startswith(begin):
            raise ValueError(f"{path.name} is {what}, which is not read here: {action}")
    return not head.startswith((b"PK", b"\x80"))


def _check_place(path: Path) -> None:
    """Hold a path to a file: a pipe may wait for ever, and a device never ends."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if not path.is_symlink():
            raise
        raise ValueError(f"{path.name} is a link that leads to no file: put the file itself there") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise ValueError(f"{path.name} is {kind}, not a file of weights: choose a file")


def head_of(path: Path) -> bytes:
    """How a file begins. Raises ValueError for what is no file, or cannot be read."""
    _check_place(path)
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise ValueError(
            f"{path.name} cannot be read ({error.strerror}): check the disk and its permissions"
        ) from error


def _is_safetensors(head: bytes) -> bool:
    """Safetensors begin with the length of a JSON header, so their first bytes may be any, a pickle's or "<" too."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MAX_HEADER


def _read_safetensors(path: Path) -> WeightsFile:
    return sentences(path, _safetensors)


def _safetensors(path: Path) -> WeightsFile:
    _check_header(path)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    return WeightsFile(load_file(path), metadata)


def _safetensors_shapes(path: Path) -> tuple[dict[str, Weights], dict[str, str]]:
    _check_header(path)
    with safetensors.safe_open(path, framework="pt") as file:
        shapes = {key: Weights(0, tuple(file.get_slice(key).get_shape())) for key in file.keys()}  # noqa: SIM118
        return shapes, dict(file.metadata() or {})


def sentences(path: Path, read: Callable[[Path], Content]) -> Content:
    """What `read` gives. Raises ValueError with one sentence in place of what readers of a damaged file raise."""
    try:
        return read(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} holds more than weights, or is damaged, and was not loaded (nothing in it was run): "
            "use the .safetensors file of the same adapter, or download it again"
        ) from error
    except RefusedError as error:
        raise ValueError(f"{path.name} {error}") from error
    except (safetensors.SafetensorError, *DAMAGED) as error:
        raise ValueError(
            f"{path.name} is truncated or damaged, or no weights at all ({error}): download it again"
        ) from error


def _check_header(path: Path) -> None:
    """Hold a header to the file's size, and every name to one place: the reader would take the last one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length:
            raise ValueError(f"its header would be {length:,} bytes")
        if length > room_for_names(size):
            raise ExcessError(f"has {length:,} bytes of names in {size:,}")
        json.loads(file.read(length), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in its header")
    return found


def _read_pickle(path: Path) -> WeightsFile:
    return WeightsFile(flattened(unpickled(path), path, Tensor))


def unpickled(path: Path) -> Any:
    """What torch makes of a pickle that holds to its claims."""

    def load(path: Path) -> Any:
        check_claims(path)
        with path.open("rb") as file:  # by path, torch goes by the name's ending
            return torch.load(file, map_location="cpu", weights_only=True)

    return sentences(path, load)


def flattened(content: Any, path: Path, kind: type[Value], depth: int = 0) -> dict[str, Value]:
    """{"image_proj": {...}, "ip_adapter": {...}}, deeper or flat, to a flat dict of values of this kind."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path.name} holds a {type(content).__name__}, not named weights: choose an adapter file")
    flat: dict[str, Value] = {}
    for key, value in content.items():
        if isinstance(value, kind):
            flat[str(key)] = value
        elif isinstance(value, Mapping) and depth < MAX_NESTED:
            flat |= {f"{key}.{name}": inner for name, inner in flattened(value, path, kind, depth + 1).items()}
    return flat


def find_adapter(path: Path) -> Path:
    """The path itself, or the only adapter in a folder, as diffusers and accelerate keep them; the encoder lies in one
    of its own, and what a training has beside its weights does not count.

    Raises ValueError when there is none, or more than one.
    """
    if not path.is_dir():
        return path
    found = sorted(
        file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith((".", *STATES))
    )
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise ValueError(f"{path} should hold one adapter, found {len(found)} ({names}): name the file")
    return found[0]
