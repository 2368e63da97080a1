"""Numbered safetensors files of a cache, each written whole or not at all, read row by row out of mapped memory.

    CACHE/samples/00000.safetensors      sizes [n, 6] of the samples that can be used; of all: row [s], which of them it
                                         is, -1: none; names and captions' numbers, one after another, with their ends
          latents/00000.safetensors      moments [n, 2, C, h, w] of the samples that can be used
          text/00000.safetensors         what the base conditions on, by its names (SD: states [n, T, D], SDXL pooled
                                         [n, P] too); each text once, the empty one first
          pooled/ or penultimate/        features [n, E] or [n, S, F]
          identities/                    identities [n, 512] of faces, raw, fp32
    each folder with part.json: what it was made with, and how many rows a file has

File k of the samples, latents, features and identities is of samples k * shard to (k + 1) * shard - 1. Each has the
SHA-256 of what it holds in its metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from ipadapter_core.files.whole import whole

SMALL, MIDDLE, LARGE = 256, 1024, 4096  # rows of a file
MAPPED = 12_000  # files of a part that a process keeps mapped; Linux allows a process 65,530 maps
PART = "part.json"
ROWS, SUM = "rows", "sum"


def shard_rows(rows: int) -> int:
    """How many rows a file has: few, so that a kill loses little, but no part has very many thousands of files."""
    return SMALL if rows <= 2**14 else MIDDLE if rows <= 2**22 else LARGE


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def count_shards(rows: int, shard: int) -> int:
    """How many files hold so many rows."""
    return -(-rows // shard)


def missing_files(folder: Path, made: Mapping[str, Any]) -> list[int]:
    """The numbers of a part's files that are not there. made: what `read_part` gives."""
    there = {path.name for path in folder.iterdir()}
    numbers = range(count_shards(made["rows"], made["shard"]))
    return [number for number in numbers if shard_path(folder, number).name not in there]


def write_shard(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write a file atomically. Raises ValueError when the disk is full or the folder cannot be written."""
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    values = dict(metadata or {})
    # under one name: safetensors writes several in any order, and files of a cache are the same to the byte
    described = {ROWS: json.dumps({**values, SUM: content_sum(tensors, values)})}
    try:
        with whole(path) as part:
            part.write_bytes(save(tensors, described))
    except OSError as error:
        raise cannot_write(path.parent, error) from error


def content_sum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of tensors (names, shapes, number formats and bytes) and of all other metadata."""
    digest = hashlib.sha256(json.dumps({name: value for name, value in metadata.items() if name != SUM}).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(np.asarray(value.contiguous().view(torch.uint8).numpy()).data if value.numel() else b"")
    return digest.hexdigest()


def write_part(folder: Path, values: Mapping[str, Any], rank: int) -> None:
    """Write what a part is made with, atomically; each process may. Raises ValueError as `write_shard`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / PART, str(rank)) as part:
            part.write_text(json.dumps(values, indent=1), encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error) from error


def read_part(folder: Path) -> dict[str, Any] | None:
    """What a part was made with, its rows, and the rows of a file; None when there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / PART).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{folder / PART} cannot be read ({error}): delete {folder} and make the cache again"
        ) from error
    return {"shard": SMALL} | found  # the first caches had but one size


def cannot_write(folder: Path, error: Exception) -> ValueError:
    reason = getattr(error, "strerror", None) or str(error)
    return ValueError(
        f"the cache {folder} cannot be written ({reason}); what is in it stays good: "
        "make room, change its permissions or give another data.cache, then run the command again"
    )


class Mapped(NamedTuple):
    """A file of a part: its tensors, which lie in mapped memory, and its metadata, JSON under one name."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def values(self) -> dict[str, Any]:
        """What the metadata say."""
        found: dict[str, Any] = json.loads(self.metadata.get(ROWS, "{}"))
        return found


class Shards:
    """The files of a part, each mapped once in a process' life and shared with the processes that it forks.

    shard: rows of a file. A mapped file is no open file, so none is closed until there are MAPPED of them.
    Raises ValueError where there is no such part.
    """

    def __init__(self, folder: Path) -> None:
        made = read_part(folder)
        if made is None:
            raise ValueError(f"the cache has no {folder}: run python -m trainer cache with this config")
        self.folder, self.shard, self.count = folder, made["shard"], count_shards(made["rows"], made["shard"])
        self._mapped: OrderedDict[int, Mapped] = OrderedDict()

    def map_all(self) -> None:
        """Map every file. Raises ValueError when one is damaged."""
        for number in range(min(self.count, MAPPED)):
            self.file(number)

    def tensors(self, number: int) -> dict[str, Tensor]:
        """A file's tensors by name: views of mapped memory, not to be written to."""
        return self.file(number).tensors

    def metadata(self, number: int) -> dict[str, Any]:
        """What `write_shard` was given."""
        return self.file(number).values()

    def file(self, number: int) -> Mapped:
        """A file of the part. Raises ValueError when it is missing or damaged."""
        if number not in self._mapped:
            self._mapped[number] = self._map(number)
            while len(self._mapped) > MAPPED:
                self._mapped.popitem(last=False)
        elif len(self._mapped) >= MAPPED:
            self._mapped.move_to_end(number)
        return self._mapped[number]

    def is_whole(self, number: int) -> bool | None:
        """Whether a file's bytes are those that were written; None where it has no sum, as the first caches."""
        found = self._map(number)
        values = found.values()
        return content_sum(found.tensors, values) == values[SUM] if SUM in values else None

    def _map(self, number: int) -> Mapped:
        path = shard_path(self.folder, number)
        try:
            file: Any = safetensors.safe_open(path, framework="pt")
            names = file.keys()
            return Mapped({name: file.get_tensor(name) for name in names}, file.metadata() or {})
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(
                f"the cache's file {path} is missing or damaged ({error}): delete it and run python -m trainer cache "
                "again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_mapped": OrderedDict()}
