"""WebDataset shards: tar files whose members of one key are one sample (`000123.jpg`, `000123.txt`), read at random.

The shards' headers are read once, when the source is opened; pictures are then read at their offsets.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..settings.config import DataConfig
from .folders import PICTURES
from .left_out import LeftOut
from .record import CAPTIONS, Record, UnreadableError, as_captions, caption_column, text_captions
from .rows import Rows
from .tars import Members, compressed_shards, find_shards, find_shards_below, missing_of, read_members

FIRST = ("jpg", "jpeg", "png", "webp")  # of a key with several pictures
IMAGES = (*FIRST, *(ending[1:] for ending in PICTURES if ending[1:] not in FIRST))
TEXTS = ("txt", "caption", "json")
OPEN_FILES = 64  # shards that a process keeps open


class ShardSource:
    """Samples of tar shards. data.image_column, caption_column, condition_column, identity_column are extensions.

    A shard that cannot be read whole is left out and named. Raises ValueError when there is none that can.
    """

    def __init__(self, data: DataConfig) -> None:
        self.paths = find_shards(data.source) or (
            find_shards_below(Path(data.source)) if Path(data.source).is_dir() else []
        )
        self.shard_names = _names(self.paths)
        self.captions_from, self.left_out = Counter[str](), LeftOut()
        self._name_what_is_not_there(data.source)
        self.images = (data.image_column,) if data.image_column else IMAGES
        self.texts = (data.caption_column,) if data.caption_column else TEXTS
        self.caption_places = f"members {', '.join(self.texts)}, and in JSON the keys {', '.join(CAPTIONS)}"
        self.conditions = _with_images(data.condition_column)
        self.faces = (data.identity_column,) if data.identity_column else ()
        names, places = [], []
        for number, path in enumerate(self.paths):
            for key, members in read_members(path, self.shard_names[number], self.left_out) or ():
                if row := self._row(number, key, members):
                    names.append(os.fsencode(key))
                    places.append(row)
        if len(self.left_out.faults) >= len(self.paths) and not places:
            raise ValueError(
                f"no shard of {data.source} can be read; the first is {'; '.join(self.left_out.lines()[:1])}"
            )
        self.names = Rows(names)
        self.places = np.array(places, dtype=np.int64).reshape(len(places), 10 if self.faces else 8)
        sizes = [(path.name, path.stat().st_size if path.exists() else -1) for path in self.paths]
        self._digest = hashlib.sha256(
            self.places.tobytes() + self.names.content.tobytes() + repr(sizes).encode()
        ).hexdigest()

    def _name_what_is_not_there(self, pattern: str) -> None:
        compressed = compressed_shards(pattern)
        if not self.paths:
            more = f", only {compressed[0].name}, which cannot be read at random: gunzip it" if compressed else ""
            raise ValueError(
                f"there are no .tar files in {pattern}{more}: give a shard, their folder, or a pattern like data/*.tar "
                "or data/{00000..00099}.tar"
            )
        for path in compressed:
            self.left_out.fault(path.name, "shard", "it is compressed and cannot be read at random: gunzip it")
        for name in missing_of(pattern):
            self.left_out.fault(Path(name).name, "shard", "there is no such file")

    def _row(self, number: int, key: str, members: Members) -> list[int] | None:
        """Shard, whether the captions are JSON, and offset and size of each part; None for what has no picture."""
        image, shard = _member(members, self.images), self.shard_names[number]
        if image is None:
            for extension in members:
                self.left_out.add(f"members .{extension} without a picture of their key", f"{shard}/{key}.{extension}")
            return None
        text, condition = _member(members, self.texts), _member(members, self.conditions)
        face = _member(members, self.faces)
        wanted = ((self.conditions, condition, "condition"), (self.faces, face, "identity"))
        for extensions, member, option in wanted:
            if extensions and member is None:
                raise ValueError(f"{key} in {shard} has no {extensions[0]}: add it, or clear data.{option}_column")
        for extension in _other_pictures(members, self.images, self.conditions):
            self.left_out.add(f"members .{extension} beside the picture of their key", f"{shard}/{key}.{extension}")
        is_json = False
        if text is not None:
            extension = _extension_found(members, self.texts)
            is_json = extension == "json"
            self.captions_from[f".{extension}"] += 1
        return [number, int(is_json), *image, *(text or (-1, 0)), *(condition or (-1, 0)), *(face or ())]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> Record:
        shard, _, *places = self.places[index].tolist()
        name = self._name(index)
        image, condition = self._bytes(name, shard, *places[:2]), self._bytes(name, shard, *places[4:6])
        face = self._bytes(name, shard, *places[6:]) if self.faces else None
        return Record(name, image, self.captions(index), condition or None, face)

    def captions(self, index: int) -> tuple[str, ...]:
        shard, is_json, _, _, *place = self.places[index].tolist()
        name = self._name(index)
        content = self._bytes(name, shard, *place[:2])
        if not is_json:
            return text_captions(content, name, "its caption")
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(name, "caption", f"its .json cannot be read ({error})") from error
        if not isinstance(row, dict):
            raise UnreadableError(name, "caption", f"its .json holds a {type(row).__name__}, expected an object")
        column = caption_column(row, "")
        return as_captions(None if column is None else row[column], name)

    def _name(self, index: int) -> str:
        return f"{self.shard_names[int(self.places[index][0])]}/{os.fsdecode(self.names[index])}"

    def digest(self) -> str:
        return self._digest

    def _bytes(self, name: str, shard: int, offset: int, size: int) -> bytes:
        if offset < 0:
            return b""
        try:
            file = _opened(self.paths[shard])
            file.seek(offset)
            return file.read(size)
        except OSError as error:
            raise UnreadableError(name, "unreadable", f"its shard cannot be read ({error.strerror})") from error


@lru_cache(maxsize=OPEN_FILES)
def _opened(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


def _names(paths: list[Path]) -> list[str]:
    """Shards by their files' names, or, where two are the same, with their folders."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(common).as_posix() for path in paths]


def _other_pictures(members: Members, *used: tuple[str, ...]) -> Iterator[str]:
    """Extensions of pictures among a key's members that are neither the sample's picture nor its condition."""
    taken = {next((name for name in names if name in members), "") for names in used}
    for extension in members:
        if extension not in taken and extension.rpartition(".")[2] in IMAGES:
            yield extension


def _with_images(extension: str) -> tuple[str, ...]:
    """A condition's extensions: "reference" stands for reference.jpg and the like."""
    return (extension, *(f"{extension}.{image}" for image in IMAGES)) if extension else ()


def _extension_found(members: Members, extensions: tuple[str, ...]) -> str:
    return next(extension for extension in extensions if extension in members)


def _member(members: Members, extensions: tuple[str, ...]) -> tuple[int, int] | None:
    return next((members[extension] for extension in extensions if extension in members), None)
