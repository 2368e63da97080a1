"""Where samples come from: a JSON list, JSON lines, a folder, WebDataset shards, a Hugging Face dataset on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..settings.config import DataConfig
from .huggingface import HuggingFaceSource
from .identity import SUFFIXES, as_identity, check_identity
from .record import Record, Source, as_captions
from .rows import Rows, read_json_lines, read_json_list
from .webdataset import ShardSource, find_shards

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
CAPTIONS = ("text", "caption")


def open_source(data: DataConfig) -> Source:
    """The samples that a config names.

    Raises ValueError when there is nothing of that name or format, or a list has a fault, in a sentence with its place.
    """
    if not data.source:
        raise ValueError(
            "data.source is not set: give a JSON list, JSON lines, a folder, shards or a Hugging Face dataset"
        )
    kind = _format(data) if data.format == "auto" else data.format
    source: Source
    if kind in ("json", "jsonl"):
        source = ListSource(data, is_lines=kind == "jsonl")
    elif kind == "folder":
        source = FolderSource(data)
    elif kind == "webdataset":
        source = ShardSource(data)
    else:
        source = HuggingFaceSource(data)
    if not len(source):
        raise ValueError(f"{data.source} holds no samples: check data.source and data.format ({kind})")
    return source


def _format(data: DataConfig) -> str:
    path = Path(data.source)
    suffix = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(path.suffix.lower())
    if path.is_file() and suffix:
        return suffix
    if path.is_dir() and ((path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()):
        return "huggingface"
    if find_shards(data.source):
        return "webdataset"
    if path.is_dir():
        return "folder"
    if path.exists():
        raise ValueError(f"the format of {path} is not known by its name: set data.format to json, jsonl or webdataset")
    raise ValueError(f"there is no data {data.source}: correct data.source")


class ListSource:
    """The reference trainer's JSON list (`image_file`, `text`), or the same objects in lines."""

    def __init__(self, data: DataConfig, is_lines: bool) -> None:
        path = Path(data.source)
        if not path.is_file():
            raise ValueError(f"there is no list {path}: correct data.source")
        self.folder = Path(data.pictures) if data.pictures else path.parent
        if not self.folder.is_dir():
            raise ValueError(
                f"there is no folder {self.folder}: correct data.pictures, where the pictures of {path.name} are"
            )
        self.image = data.image_column or "image_file"
        self.caption = data.caption_column
        self.condition, self.face = data.condition_column, data.identity_column
        self.rows: Rows = read_json_lines(path, self._check) if is_lines else read_json_list(path, self._check)
        more = (self.face,) if self.face else ()  # so that caches from before the option fit
        columns = repr((len(self.rows), self.image, self.caption, self.condition, *more)).encode()
        self._digest = hashlib.sha256(self.rows.content.tobytes() + columns).hexdigest()

    def _check(self, row: dict[str, Any], where: str) -> None:
        for column in filter(None, (self.image, self.condition)):
            if not isinstance(row.get(column), str):
                has = ", ".join(row) or "nothing"
                raise ValueError(
                    f"{where} has no {column!r} with a file's name (it has {has}): correct it, or set data.image_column"
                )
        if self.face:
            check_identity(row.get(self.face), self.face, where, ", ".join(row) or "nothing")
        if self.caption and self.caption not in row:
            raise ValueError(
                f"{where} has no {self.caption!r} (it has {', '.join(row)}): correct it, or data.caption_column"
            )
        self._captions(row, where)

    def _captions(self, row: dict[str, Any], where: str) -> tuple[str, ...]:
        names = (self.caption,) if self.caption else CAPTIONS
        return as_captions(next((row[name] for name in names if name in row), None), where)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Record:
        row = json.loads(self.rows[index])
        name = row[self.image]
        condition = self.folder / row[self.condition] if self.condition else None
        face = as_identity(row[self.face], self.folder) if self.face else None
        return Record(name, self.folder / name, self._captions(row, name), condition, face)

    def captions(self, index: int) -> tuple[str, ...]:
        row = json.loads(self.rows[index])
        return self._captions(row, row[self.image])

    def digest(self) -> str:
        return self._digest


class FolderSource:
    """Pictures of a folder and those below it, by name; a `.txt` of the same name has captions, one in each line.

    data.condition_column names the condition's suffix: with "reference", `cat.reference.png` belongs to `cat.jpg`.
    data.identity_column names the identity's: with "face", `cat.face.npy` or `cat.face.safetensors`.
    """

    def __init__(self, data: DataConfig) -> None:
        self.folder = Path(data.source)
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder {self.folder}: correct data.source")
        self.condition = data.condition_column
        files = dict(sorted(_walk(self.folder)))
        pictures = [name for name in files if Path(name).suffix.lower() in PICTURES]
        conditions = [name for name in pictures if self.condition and Path(name).stem.endswith(f".{self.condition}")]
        of_target = {name.rpartition(".")[0].removesuffix(f".{self.condition}"): name for name in conditions}
        is_condition = set(conditions)
        rows = []
        for name in pictures:
            if name in is_condition:
                continue
            stem = name.rpartition(".")[0]
            if self.condition and stem not in of_target:
                raise ValueError(
                    f"{name} has no {stem}.{self.condition}.png or the like: add it, or clear data.condition_column"
                )
            text = f"{stem}.txt"
            face = _identity_file(stem, data.identity_column, files) if data.identity_column else []
            rows.append([name, text if text in files else "", of_target.get(stem, ""), *face])
        self.rows = Rows(json.dumps(row).encode() for row in rows)
        listing = json.dumps([rows, [(name, files[name]) for row in rows for name in row if name]])
        self._digest = hashlib.sha256(listing.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Record:
        name, _, condition, *face = json.loads(self.rows[index])
        seen = self.folder / condition if condition else None
        return Record(name, self.folder / name, self.captions(index), seen, self.folder / face[0] if face else None)

    def captions(self, index: int) -> tuple[str, ...]:
        name, text, *_ = json.loads(self.rows[index])
        if not text:
            return ("",)
        try:
            return as_captions((self.folder / text).read_text(encoding="utf-8-sig").splitlines(), name)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the captions {text} cannot be read ({error}): save them as UTF-8 text") from error

    def digest(self) -> str:
        return self._digest


def _identity_file(stem: str, column: str, files: Mapping[str, int]) -> list[str]:
    """The identity's file of a picture, in a list. Raises ValueError when there is none."""
    names = [f"{stem}.{column}{suffix}" for suffix in SUFFIXES]
    found = [name for name in names if name in files]
    if not found:
        raise ValueError(f"{stem} has no {' or '.join(names)}: add its identity, or correct data.identity_column")
    return found[:1]


def _walk(folder: Path) -> list[tuple[str, int]]:
    """Files below a folder, by their name relative to it, with their sizes; hidden ones are left out."""
    found, waiting = [], [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append(Path(entry.path))
                else:
                    found.append((Path(entry.path).relative_to(folder).as_posix(), entry.stat().st_size))
    return found
