"""Numbered safetensors files of a cache, each written whole or not at all, read row by row.

    CACHE/samples/00000.safetensors      sizes [n, 6]; names, captions' numbers and faults in the metadata
          latents/00000.safetensors      moments [n, 2, C, h, w] of the samples that can be used
          text/00000.safetensors         what the base conditions on, by its names (SD: states [n, T, D], SDXL pooled
                                         [n, P] too); each text once, the empty one first
          pooled/ or penultimate/        features [n, E] or [n, S, F]
          identities/                    identities [n, 512] of faces, raw, fp32
    each folder with part.json: what it was made with

Shard k of the samples, latents, features and identities is of samples k * SHARD to (k + 1) * SHARD - 1.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
from safetensors.torch import save
from torch import Tensor

from ipadapter_core.files.whole import whole

SHARD = 256  # samples, or texts, of a shard
OPEN_SHARDS = 64  # that a process keeps mapped, of each part
PART = "part.json"


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def count_shards(rows: int) -> int:
    """How many shards hold so many rows."""
    return -(-rows // SHARD)


def write_shard(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write a shard atomically. Raises ValueError when the disk is full or the folder cannot be written."""
    described = {"rows": json.dumps(metadata)} if metadata else None
    try:
        with whole(path) as part:
            part.write_bytes(save({name: value.contiguous() for name, value in tensors.items()}, described))
    except OSError as error:
        raise cannot_write(path.parent, error) from error


def write_part(folder: Path, values: Mapping[str, Any], rank: int) -> None:
    """Write what a part is made with, atomically; each process may. Raises ValueError as `write_shard`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / PART, str(rank)) as part:
            part.write_text(json.dumps(values, indent=1), encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error) from error


def read_part(folder: Path) -> dict[str, Any] | None:
    """What a part was made with; None when there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / PART).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{folder / PART} cannot be read ({error}): delete {folder} and make the cache again"
        ) from error
    return found


def cannot_write(folder: Path, error: Exception) -> ValueError:
    reason = getattr(error, "strerror", None) or str(error)
    return ValueError(
        f"the cache {folder} cannot be written ({reason}); what is in it stays good: "
        "make room, change its permissions or give another data.cache, then run the command again"
    )


class _Opened(NamedTuple):
    tensors: Any
    names: list[str]
    metadata: dict[str, Any]


class Shards:
    """Reads rows of a part's shards; each process opens the files for itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: OrderedDict[int, _Opened] = OrderedDict()

    def row(self, shard: int, name: str, row: int) -> Tensor:
        """One row of a shard's tensor. Raises ValueError when the shard is damaged."""
        try:
            found: Tensor = self._file(shard).tensors.get_slice(name)[row]
        except safetensors.SafetensorError as error:
            raise self._damaged(shard, error) from error
        return found

    def names(self, shard: int) -> list[str]:
        """The names of a shard's tensors."""
        return self._file(shard).names

    def metadata(self, shard: int) -> dict[str, Any]:
        """What `write_shard` was given."""
        return self._file(shard).metadata

    def _file(self, shard: int) -> _Opened:
        if shard not in self._opened:
            path = shard_path(self.folder, shard)
            try:
                file: Any = safetensors.safe_open(path, framework="pt")
                self._opened[shard] = _Opened(
                    file, sorted(file.keys()), json.loads((file.metadata() or {}).get("rows", "{}"))
                )
            except (OSError, safetensors.SafetensorError) as error:
                raise self._damaged(shard, error) from error
            while len(self._opened) > OPEN_SHARDS:
                self._opened.popitem(last=False)
        self._opened.move_to_end(shard)
        return self._opened[shard]

    def _damaged(self, shard: int, error: Exception) -> ValueError:
        path = shard_path(self.folder, shard)
        return ValueError(
            f"the cache's file {path} is missing or damaged ({error}): delete it and run python -m trainer cache again"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_opened": OrderedDict()}
