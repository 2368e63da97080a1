"""A Hugging Face dataset on disk (`save_to_disk`). The only file that imports `datasets`."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from ..settings.config import DataConfig
from .identity import as_identity
from .left_out import LeftOut
from .pictures import Picture
from .record import CAPTIONS, Record, UnreadableError, as_captions


class HuggingFaceSource:
    """Rows of a dataset, or of the "train" split of several. Pictures stay encoded until they are decoded here.

    Raises ValueError when `datasets` is not installed, the folder is no dataset, or a column is missing.
    """

    def __init__(self, data: DataConfig) -> None:
        try:
            import datasets
        except ImportError as error:
            raise ValueError("data.format huggingface needs the datasets library: pip install datasets") from error
        self.folder = Path(data.source)
        try:
            found = datasets.load_from_disk(str(self.folder))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(
                f"{self.folder} is no Hugging Face dataset on disk: write one with save_to_disk"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{self.folder} cannot be read as a Hugging Face dataset ({reason}): write it again"
            ) from error
        if isinstance(found, datasets.DatasetDict):
            if "train" not in found:
                raise ValueError(
                    f"{self.folder} has the splits {', '.join(found)} but no train: give the folder of one split"
                )
            found = found["train"]
        self.image = self._column(found, data.image_column or "image", "data.image_column")
        captions = [name for name in CAPTIONS if name in found.column_names]
        self.caption = (
            self._column(found, data.caption_column, "data.caption_column")
            if data.caption_column
            else next(iter(captions), "")
        )
        self.condition = (
            self._column(found, data.condition_column, "data.condition_column") if data.condition_column else ""
        )
        self.face = self._column(found, data.identity_column, "data.identity_column") if data.identity_column else ""
        for column in filter(None, (self.image, self.condition)):
            if isinstance(found.features[column], datasets.Image):
                found = found.cast_column(column, datasets.Image(decode=False))
        self.rows = found
        self.captions_from = Counter({self.caption: found.num_rows} if self.caption else {})
        self.caption_places, self.left_out = f"the columns {', '.join(CAPTIONS)}", LeftOut()
        self.texts = found.select_columns([self.caption]) if self.caption else None
        names = (found.num_rows, self.image, self.caption, self.condition, *filter(None, [self.face]))
        self._digest = hashlib.sha256(f"{_content(self.folder)}{names}".encode()).hexdigest()

    def _column(self, rows: Any, name: str, key: str) -> str:
        if name not in rows.column_names:
            raise ValueError(f"{self.folder} has the columns {', '.join(rows.column_names)} but no {name!r}: set {key}")
        return name

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def read(self, index: int) -> Record:
        name, row = f"row {index}", self._row(self.rows, index)
        condition = self._picture(row[self.condition]) if self.condition else None
        captions = as_captions(row[self.caption], name) if self.caption else ("",)
        face = as_identity(row[self.face], self.folder) if self.face else None
        return Record(name, self._picture(row[self.image]), captions, condition, face)

    def captions(self, index: int) -> tuple[str, ...]:
        if self.texts is None:
            return ("",)
        return as_captions(self._row(self.texts, index)[self.caption], f"row {index}")

    def _row(self, rows: Any, index: int) -> Any:
        try:
            return rows[index]
        except (OSError, ValueError) as error:  # of Arrow, for files that are damaged
            raise UnreadableError(f"row {index}", "unreadable", f"it cannot be read ({error})") from error

    def digest(self) -> str:
        return self._digest

    def _picture(self, value: Any) -> Picture:
        if isinstance(value, dict):  # an undecoded Image: its bytes, or the path of a file
            value = value["bytes"] or value["path"] or b""
        return self.folder / value if isinstance(value, str) else value or b""


def _content(folder: Path) -> str:
    """Names and sizes of the dataset's files."""
    files = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*.arrow"))
    return repr(files)
