"""Checksums of a checkpoint's files, so that a disk's fault is noticed before it is trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BLOCK = 2**20


class DamagedError(ValueError):
    """A checkpoint whose files are not what was written."""


def sum_of(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file. Raises OSError when it cannot be read."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def signed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the checksum of their own JSON."""
    return {**values, "sum": _own_sum(values)}


def check_signature(values: Mapping[str, Any]) -> None:
    """Raises DamagedError when values are not those that were signed; without a checksum they are believed."""
    if "sum" in values and values["sum"] != _own_sum({key: value for key, value in values.items() if key != "sum"}):
        raise DamagedError("its settings are not those that were written")


def check_files(folder: Path, sums: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises DamagedError when a file is missing, of another size, or of other bytes than were written."""
    for name, wanted in sums.items():
        try:
            found = (folder / name).stat().st_size
            if found != wanted["bytes"]:
                raise DamagedError(f"{name} has {found:,} bytes of {wanted['bytes']:,}")
            if sum_of(folder / name) != wanted:
                raise DamagedError(f"{name} has other bytes than were written")
        except OSError as error:
            raise DamagedError(f"{name} cannot be read ({error.strerror})") from error


def _own_sum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
