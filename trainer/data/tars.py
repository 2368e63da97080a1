"""Finding tar shards by a name, a folder or a pattern, and reading where their members lie."""

from __future__ import annotations

import itertools
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from .left_out import LeftOut

Members = dict[str, tuple[int, int]]  # of one key: offset and size by extension, in small letters
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # cannot be read at random
GZIP = b"\x1f\x8b"


def find_shards(pattern: str) -> list[Path]:
    """A tar file, the tar files of a folder, or those that a pattern with * or {00000..00099} matches, by name."""
    path = Path(pattern)
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    found = {name for one in _expanded(pattern) for name in _matches(one)}
    return sorted(Path(name) for name in found if name.endswith(".tar"))


def find_shards_below(folder: Path) -> list[Path]:
    """The tar files in a folder and in those below it, by name."""
    return sorted(folder.rglob("*.tar"))


def missing_of(pattern: str) -> list[str]:
    """The names of a pattern with {00000..00099} that are not there."""
    return [] if "{" not in pattern else [one for one in _expanded(pattern) if not _matches(one)]


def compressed_shards(pattern: str) -> list[Path]:
    """The compressed tar files beside what `find_shards` finds in a folder."""
    path = Path(pattern)
    if not path.is_dir():
        return [path] if path.is_file() and path.name.endswith(COMPRESSED) else []
    return sorted(found for found in path.iterdir() if found.name.endswith(COMPRESSED))


def _matches(pattern: str) -> list[str]:
    path = Path(pattern)
    first = next((place for place, part in enumerate(path.parts) if set(part) & set("*?[")), None)
    if path.is_file() or first is None:
        return [pattern] if path.is_file() else []
    folder, rest = Path(*path.parts[:first]), Path(*path.parts[first:])
    return [str(found) for found in folder.glob(str(rest))]


def _expanded(pattern: str) -> list[str]:
    """{a,b} and {08..11} to all that they stand for, as the shell and WebDataset do."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [[part] if place % 2 == 0 else _choices(part) for place, part in enumerate(parts)]
    return ["".join(one) for one in itertools.product(*choices)]


def _choices(inner: str) -> list[str]:
    if found := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
        low, high = int(found[1]), int(found[2])
        return [str(number).zfill(len(found[1])) for number in range(low, high + 1)]
    return inner.split(",")


def read_members(path: Path, name: str, left_out: LeftOut) -> list[tuple[str, Members]] | None:
    """The keys of a shard with their members, in order; None, and the shard named, when it cannot be read whole.

    A key is a member's name up to the first dot of its last part, as WebDataset has it.
    """
    others: list[tuple[str, str]] = []
    try:
        found = list(_samples(path, others))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        left_out.fault(name, "shard", f"it is damaged or no plain tar ({_reason(path, error)}): write it again")
        return None
    for kind, member in others:
        left_out.add(kind, f"{name}/{member}")
    return found


def _reason(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return str(error)
    if not start:
        return "it has no bytes"
    return "it is compressed: gunzip it, keep the ending .tar" if start == GZIP else str(error)


def _samples(path: Path, others: list[tuple[str, str]]) -> Iterator[tuple[str, Members]]:
    """Consecutive members of one key. others: what is no sample's, by kind."""
    key = ""
    members: Members = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            folder, slash, name = member.name.rpartition("/")
            if not member.isfile() or name.startswith("."):
                if member.issym() or member.islnk():
                    others.append(("links in shards", member.name))
                continue
            stem, _, extension = name.partition(".")
            found = f"{folder}{slash}{stem}"
            if members and found != key:
                yield key, members
                members = {}
            key = found
            members[extension.lower()] = (member.offset_data, member.size)
    if members:
        yield key, members
