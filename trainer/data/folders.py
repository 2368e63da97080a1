"""Pictures of a folder and those below it, with captions in files beside them or in one file for all."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..settings.config import DataConfig
from .identity import SUFFIXES
from .left_out import LeftOut
from .record import Record, UnreadableError, as_captions, caption_column, text_captions
from .rows import Rows

PICTURES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif",
    ".jfif", ".jpe", ".jp2", ".apng", ".heic", ".heif",
)  # fmt: skip
TEXTS = (".txt", ".caption")  # in small or large letters; the first that is there is taken
METADATA = ("metadata.jsonl", "metadata.csv")  # as Hugging Face's imagefolder has them
NAME = "file_name"  # their column of a picture's name, relative to their own folder


class FolderSource:
    """A `.txt` or `.caption` of a picture's name has its captions, one in each line; or metadata.jsonl has them all.

    data.condition_column names the condition's suffix: with "reference", `cat.reference.png` belongs to `cat.jpg`.
    data.identity_column names the identity's: with "face", `cat.face.npy` or `cat.face.safetensors`.
    """

    def __init__(self, data: DataConfig) -> None:
        self.folder = Path(data.source)
        if not self.folder.is_dir():
            raise ValueError(f"there is no folder {self.folder}: correct data.source")
        self.condition = data.condition_column
        self.captions_from, self.left_out = Counter[str](), LeftOut()
        self.caption_places = f"{' or '.join(TEXTS)} files beside the pictures, and {' or '.join(METADATA)}"
        files = dict(sorted(_walk(self.folder, self.left_out)))
        self._texts = {_key(name): name for name in files if Path(name).suffix.lower() in TEXTS}
        self._metadata = self._read_metadata(files, data.caption_column)
        rows = list(self._rows(files, data.identity_column))
        self.rows = Rows(json.dumps(row).encode() for row in rows)
        names = [name for row in rows for name in row if isinstance(name, str) and name]
        self._count_left_out(files, {*names})
        listing = json.dumps([rows, [(name, files[name]) for name in names]])
        self._digest = hashlib.sha256(listing.encode()).hexdigest()

    def _rows(self, files: Mapping[str, int], identity_column: str) -> Iterator[list[Any]]:
        """Of each sample its picture, its captions' file (or in a list what metadata has), condition and identity."""
        pictures = [name for name in files if Path(name).suffix.lower() in PICTURES]
        conditions = [name for name in pictures if self.condition and Path(name).stem.endswith(f".{self.condition}")]
        of_target = {name.rpartition(".")[0].removesuffix(f".{self.condition}"): name for name in conditions}
        is_condition = set(conditions)
        for name in pictures:
            if name in is_condition:
                continue
            stem = name.rpartition(".")[0]
            if self.condition and stem not in of_target:
                raise ValueError(
                    f"{name} has no {stem}.{self.condition}.png or the like: add it, or clear data.condition_column"
                )
            face = _identity_file(stem, identity_column, files) if identity_column else []
            yield [name, self._caption_of(name, stem), of_target.get(stem, ""), *face]

    def _caption_of(self, name: str, stem: str) -> str | list[Any]:
        text = next((self._texts[key] for end in TEXTS for key in (stem + end, name + end) if key in self._texts), "")
        if text:
            self.captions_from[Path(text).suffix] += 1
        elif name in self._metadata:
            where, value = self._metadata[name]
            self.captions_from[where] += bool(value)
            return [value]
        return text

    def _read_metadata(self, files: Mapping[str, int], wanted: str) -> dict[str, tuple[str, Any]]:
        """By a picture's name the file that has its caption, and the caption as it stands there."""
        found: dict[str, tuple[str, Any]] = {}
        for file in (name for name in files if PurePosixPath(name).name in METADATA):
            folder = PurePosixPath(file).parent
            for number, row in enumerate(_metadata_rows(self.folder / file, self.left_out), 1):
                name = row.get(NAME)
                if not isinstance(name, str):
                    self.left_out.add(f"rows of {file} without {NAME}", f"row {number}")
                elif (name := (folder / name).as_posix()) not in files:
                    self.left_out.add(f"names of {file} that are not there", name)
                else:
                    column = caption_column(row, wanted)
                    found[name] = (PurePosixPath(file).name, None if column is None else row[column])
        return found

    def _count_left_out(self, files: Mapping[str, int], used: set[str]) -> None:
        for name in files:
            ending = Path(name).suffix
            if name in used or PurePosixPath(name).name in METADATA:
                continue
            if ending.lower() in TEXTS:
                self.left_out.add(f"{ending} files without a picture of their name", name)
            else:
                self.left_out.add(f"{ending} files" if ending else "files without an ending", name)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Record:
        name, _, condition, *face = json.loads(self.rows[index])
        seen = self.folder / condition if condition else None
        return Record(name, self.folder / name, self.captions(index), seen, self.folder / face[0] if face else None)

    def captions(self, index: int) -> tuple[str, ...]:
        name, text, *_ = json.loads(self.rows[index])
        if isinstance(text, list):
            return as_captions(text[0], name)
        if not text:
            return ("",)
        try:
            content = (self.folder / text).read_bytes()
        except OSError as error:
            raise UnreadableError(name, "caption", f"its captions {text} cannot be read ({error.strerror})") from error
        return text_captions(content, name, text)

    def digest(self) -> str:
        return self._digest


def has_pictures(folder: Path) -> bool:
    """Whether a picture lies in a folder or below it."""
    return any(Path(name).suffix.lower() in PICTURES for name, _ in _walk(folder, LeftOut()))


def _key(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem + dot + ending.lower()


def _identity_file(stem: str, column: str, files: Mapping[str, int]) -> list[str]:
    """The identity's file of a picture, in a list. Raises ValueError when there is none."""
    names = [f"{stem}.{column}{suffix}" for suffix in SUFFIXES]
    found = [name for name in names if name in files]
    if not found:
        raise ValueError(f"{stem} has no {' or '.join(names)}: add its identity, or correct data.identity_column")
    return found[:1]


def _metadata_rows(path: Path, left_out: LeftOut) -> Iterator[dict[str, Any]]:
    """The rows of a metadata file; what cannot be read of it is named."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        left_out.fault(path.name, "captions", f"it cannot be read as UTF-8 text ({error})")
        return
    if path.suffix == ".csv":
        yield from csv.DictReader(io.StringIO(text))
        return
    for number, line in enumerate(text.split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except json.JSONDecodeError as error:
            left_out.fault(f"line {number} of {path.name}", "captions", f"it is not valid JSON ({error.msg})")
            continue
        if isinstance(row, dict) and row:
            yield row


def _walk(folder: Path, left_out: LeftOut) -> Iterator[tuple[str, int]]:
    """Files below a folder, by their name relative to it, with their sizes; hidden ones are left out.

    A link that leads nowhere is there with size -1: it is named as a picture that is missing. What leads back to a
    folder above, what is no file, and folders that may not be read are named in `left_out`.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        place, above = waiting.pop()
        name = place.relative_to(folder).as_posix()
        try:
            status = place.stat()
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            left_out.fault(name, "folder", f"it cannot be read ({error.strerror})")
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:
            left_out.add("links back to a folder above", name)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            try:
                if entry.is_dir():
                    waiting.append((path, above | {here}))
                elif entry.is_file() or entry.is_symlink():
                    yield path.relative_to(folder).as_posix(), entry.stat().st_size
                else:
                    left_out.add("pipes and devices", path.relative_to(folder).as_posix())
            except OSError:
                yield path.relative_to(folder).as_posix(), -1
