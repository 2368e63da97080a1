"""The reference trainer's JSON list (`image_file`, `text`), or the same objects in lines."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..settings.config import DataConfig
from .identity import as_identity, check_identity
from .left_out import LeftOut
from .record import CAPTIONS, Record, UnreadableError, as_captions, caption_column
from .rows import Rows, read_json_lines, read_json_list


class ListSource:
    """Samples of a list. Raises ValueError, in a sentence with its place, when the list has a fault."""

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
        self.captions_from, self.left_out = Counter[str](), LeftOut()
        self.caption_places = f"the column {self.caption}" if self.caption else f"the columns {', '.join(CAPTIONS)}"
        self._first_without = ""  # words on the first row without the column that is asked for
        self.rows: Rows = read_json_lines(path, self._check) if is_lines else read_json_list(path, self._check)
        if self._first_without and not self.captions_from:
            raise ValueError(self._first_without)
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
        where_captions = caption_column(row, self.caption)
        if where_captions is not None and row[where_captions]:
            self.captions_from[where_captions] += 1
        if self.caption and where_captions is None and not self._first_without:
            has = ", ".join(row)
            self._first_without = (
                f"{where} has no {self.caption!r} (it has {has}), nor has any other: correct data.caption_column"
            )

    def _captions(self, row: dict[str, Any], name: str) -> tuple[str, ...]:
        column = caption_column(row, self.caption)
        if column is None and self.caption:
            raise UnreadableError(name, "caption", f"it has no {self.caption!r} (it has {', '.join(row)})")
        return as_captions(None if column is None else row[column], name)

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
