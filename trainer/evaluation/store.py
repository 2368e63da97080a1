"""What a run keeps in its folder: every file whole or not there, so that a killed run goes on.

pictures/SYSTEM/ID_0.png ...      and series.json, what shaped them
encoded/JUDGES/00000.safetensors  the references, as the judges see them, by batch
scores/SYSTEM/JUDGES/00000.json   of a batch of references
result.json, table.md, index.html when all is there
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from ipadapter_core.files.whole import whole

from .coco import Item
from .protocol import differences
from .systems import Given, Series

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LEVEL = 1  # of PNG's compression: a third of the time of the usual 6, a tenth more bytes
THREADS = 4  # that read and write pictures
Scores = dict[str, Any]


class Store:
    """A run's folder. judges: a hash of who judges what. writer: this process's name for unfinished files.

    Every writing method raises ValueError when the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path, judges: str, writer: str = "part") -> None:
        self.folder, self.judges, self.writer = folder, judges, writer
        self._threads = ThreadPoolExecutor(THREADS)

    def begin(self, series: Sequence[Series], shaping: Sequence[dict[str, Any]], is_dry: bool = False) -> None:
        """Note what shapes each series; is_dry: only look. Raises ValueError when there are pictures of another kind.

        Of pictures made elsewhere nothing is noted: they are not this run's, and their digest is in the judges' hash.
        """
        for one, values in zip(series, shaping, strict=True):
            path = self._pictures(one) / "series.json"
            if isinstance(one.system, Given):
                continue
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else values
            if (wrong := differences(found, values)) and any(path.parent.glob("[!.]*.png")):
                raise ValueError(
                    f"{self.folder} has pictures of {one.name} with other settings ({'; '.join(wrong)}): give "
                    "another --out, or the same settings"
                )
            if not is_dry and (wrong or not path.is_file()):
                self.write_text(path, json.dumps(values, indent=1) + "\n")

    def files(self, series: Series, item: Item) -> list[Path]:
        """Where the pictures of a reference are, or will be."""
        if isinstance(series.system, Given):
            return list(series.system.files[item.key])
        folder = self._pictures(series)
        return [folder / f"{item.key}_{sample}.png" for sample in range(series.samples)]

    def has_pictures(self, series: Series, items: Sequence[Item]) -> bool:
        return all(path.is_file() for item in items for path in self.files(series, item))

    def read_pictures(self, series: Series, items: Sequence[Item]) -> list[list[Image.Image]] | None:
        """Those of each reference; None where one is not there yet."""
        if not self.has_pictures(series, items):
            return None
        files = [self.files(series, item) for item in items]
        flat = list(self._threads.map(_read, [path for row in files for path in row]))
        return [flat[start : start + series.samples] for start in range(0, len(flat), series.samples)]

    def write_pictures(self, series: Series, items: Sequence[Item], rows: list[list[Image.Image]]) -> None:
        files = [path for item in items for path in self.files(series, item)]
        pairs = list(zip(files, [picture for row in rows for picture in row], strict=True))
        list(self._threads.map(lambda pair: self._write_picture(*pair), pairs))

    def read_scores(self, series: Series, batch: int, items: Sequence[Item]) -> Scores | None:
        path = self._scores(series, batch)
        if not path.is_file():
            return None
        found: Scores = json.loads(path.read_text(encoding="utf-8"))
        return found["scores"] if found["keys"] == [item.key for item in items] else None

    def write_scores(self, series: Series, batch: int, items: Sequence[Item], scores: Scores) -> None:
        content = {"keys": [item.key for item in items], "scores": scores}
        self.write_text(self._scores(series, batch), json.dumps(content) + "\n")

    def read_encoded(self, batch: int) -> dict[str, Tensor] | None:
        path = self._encoded(batch)
        return load_file(path) if path.is_file() else None

    def write_encoded(self, batch: int, values: dict[str, Tensor]) -> None:
        with self._writing(self._encoded(batch)) as part:
            part.write_bytes(save({name: value.contiguous() for name, value in values.items()}))

    def write_text(self, path: Path, text: str) -> None:
        with self._writing(path) as part:
            part.write_text(text, encoding="utf-8")

    @contextmanager
    def alone(self, part: str) -> Iterator[None]:
        """Inside `with`, no other process works at this part. Raises ValueError when one does."""
        path = self.folder / ".locks" / f"{part}.lock"
        if not path.exists():
            self.write_text(path, "")  # says so where the folder cannot be written
        with path.open("a") as file:  # not written anew: a lock is on the file, not on its name
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"another process works at this part of {self.folder}: wait for it, or share the work by --part"
                ) from error
            yield

    def _write_picture(self, path: Path, picture: Image.Image) -> None:
        with self._writing(path) as part:
            picture.save(part, format="PNG", compress_level=LEVEL)

    @contextmanager
    def _writing(self, path: Path) -> Iterator[Path]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path, self.writer) as part:
                yield part
        except OSError as error:
            if error.errno == errno.ENOSPC:
                reason = "its disk is full: make room"
            else:
                reason = f"it cannot be written ({error.strerror or error}): change its permissions"
            raise ValueError(
                f"{self.folder}: {reason} and give the same command again; what is made is kept"
            ) from error

    def _pictures(self, series: Series) -> Path:
        return self.folder / "pictures" / series.slug

    def _scores(self, series: Series, batch: int) -> Path:
        return self.folder / "scores" / series.slug / self.judges / f"{batch:05d}.json"

    def _encoded(self, batch: int) -> Path:
        return self.folder / "encoded" / self.judges / f"{batch:05d}.safetensors"


def digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise ValueError(f"{path} is no picture that can be read ({error}): make or fetch it again") from error
