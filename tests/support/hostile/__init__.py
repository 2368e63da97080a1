"""Broken and hostile adapter files: each is written beside nothing else, and must be refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A hostile file. write: puts it at a path; `mark` is what its code would make, if any ran.

    kind: its class, for the table. is_real: an unpickler without care does run its code, as a test shows.
    """

    name: str
    kind: str
    write: Callable[[Path, Path], None]
    is_real: bool = False


def of(name: str, kind: str, content: bytes) -> Case:
    return Case(name, kind, lambda path, mark: path.write_bytes(content) and None)


def cases() -> Iterator[Case]:
    """All of them, more than two hundred, in the same order always."""
    from tests.support.hostile import attacks, claims, places, safetensors_files, zips

    for module in (safetensors_files, attacks, claims, zips, places):
        yield from module.cases()
