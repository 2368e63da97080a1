"""WebDataset shards: tar files whose members of one key are one sample (`000123.jpg`, `000123.txt`), read at random.

The shards' headers are read once, when the source is opened; pictures are then read at their offsets.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..settings.config import DataConfig
from .record import Record, as_captions
from .rows import Rows

IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "caption", "json")
JSON_CAPTIONS = ("text", "caption")
OPEN_FILES = 64  # shards that a process keeps open


def find_shards(pattern: str) -> list[Path]:
    """A tar file, the tar files of a folder, or those that a pattern with * matches, by name."""
    path = Path(pattern)
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    return sorted(found for found in path.parent.glob(path.name) if found.suffix == ".tar")


class ShardSource:
    """Samples of tar shards. data.image_column, caption_column, condition_column, identity_column are extensions."""

    def __init__(self, data: DataConfig) -> None:
        self.paths = find_shards(data.source)
        if not self.paths:
            raise ValueError(
                f"there are no .tar files in {data.source}: give a shard, their folder, or a pattern like data/*.tar"
            )
        self.images = (data.image_column,) if data.image_column else IMAGES
        self.texts = (data.caption_column,) if data.caption_column else TEXTS
        self.conditions = _with_images(data.condition_column)
        self.faces = (data.identity_column,) if data.identity_column else ()
        names, places = [], []
        for number, path in enumerate(self.paths):
            for key, members in _samples(path):
                image = _member(members, self.images)
                if image is None:
                    continue
                text, condition = _member(members, self.texts), _member(members, self.conditions)
                face = _member(members, self.faces)
                wanted = ((self.conditions, condition, "condition"), (self.faces, face, "identity"))
                for extensions, member, option in wanted:
                    if extensions and member is None:
                        raise ValueError(
                            f"{key} in {path.name} has no {extensions[0]}: add it, or clear data.{option}_column"
                        )
                is_json = text is not None and _extension_found(members, self.texts) == "json"
                names.append(key.encode())
                row = [number, int(is_json), *image, *(text or (-1, 0)), *(condition or (-1, 0)), *(face or ())]
                places.append(row)
        self.names = Rows(names)
        self.places = np.array(places, dtype=np.int64).reshape(len(places), 10 if self.faces else 8)
        sizes = [(path.name, path.stat().st_size) for path in self.paths]
        self._digest = hashlib.sha256(
            self.places.tobytes() + self.names.content.tobytes() + repr(sizes).encode()
        ).hexdigest()

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> Record:
        shard, _, *places = self.places[index].tolist()
        image, condition = self._bytes(shard, *places[:2]), self._bytes(shard, *places[4:6])
        face = self._bytes(shard, *places[6:]) if self.faces else None
        name = f"{self.paths[shard].name}/{self.names[index].decode()}"
        return Record(name, image, self.captions(index), condition or None, face)

    def captions(self, index: int) -> tuple[str, ...]:
        shard, is_json, _, _, *place = self.places[index].tolist()
        content = self._bytes(shard, *place[:2])
        where = f"{self.names[index].decode()} in {self.paths[shard].name}"
        try:
            if not is_json:
                return as_captions(content.decode("utf-8-sig").splitlines(), where)
            row = json.loads(content)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"the caption of {where} cannot be read ({error}): expected UTF-8 text or JSON") from error
        return as_captions(next((row[name] for name in JSON_CAPTIONS if name in row), None), where)

    def digest(self) -> str:
        return self._digest

    def _bytes(self, shard: int, offset: int, size: int) -> bytes:
        if offset < 0:
            return b""
        file = _opened(self.paths[shard])
        file.seek(offset)
        return file.read(size)


@lru_cache(maxsize=OPEN_FILES)
def _opened(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


def _samples(path: Path) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Consecutive members of one key: the key, and offset and size by extension."""
    key = ""
    members: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile() or Path(member.name).name.startswith("."):
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                found = f"{folder}{slash}{stem}"
                if members and found != key:
                    yield key, members
                    members = {}
                key = found
                members[extension.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"the shard {path.name} is damaged or no plain tar ({error}): write or download it again"
        ) from error
    if members:
        yield key, members


def _with_images(extension: str) -> tuple[str, ...]:
    """A condition's extensions: "reference" stands for reference.jpg and the like."""
    return (extension, *(f"{extension}.{image}" for image in IMAGES)) if extension else ()


def _extension_found(members: dict[str, tuple[int, int]], extensions: tuple[str, ...]) -> str:
    return next(extension for extension in extensions if extension in members)


def _member(members: dict[str, tuple[int, int]], extensions: tuple[str, ...]) -> tuple[int, int] | None:
    return next((members[extension] for extension in extensions if extension in members), None)
