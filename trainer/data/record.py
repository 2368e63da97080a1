"""What a source of data gives: records, their pictures not yet decoded; and references as they were read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from ..settings.load import is_unicode
from .batch import Skipped
from .identity import Identity
from .left_out import LeftOut
from .pictures import Picture

CAPTIONS = ("text", "caption", "prompt")  # columns and keys that hold captions, the first that is there is taken


class UnreadableError(ValueError):
    """A sample that cannot be read, the rest of the data can: `skipped` names it and says why."""

    def __init__(self, name: str, kind: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.skipped = Skipped(name, kind, reason)


@dataclass(frozen=True)
class Record:
    """One sample of the data: a picture with its captions, "" where it has none.

    condition: the picture that the image encoder sees; None = the same as the target.
    identity: of the face, where data.identity_column is set.
    """

    name: str
    image: Picture
    captions: tuple[str, ...]
    condition: Picture | None = None
    identity: Identity | None = None


@dataclass(frozen=True)
class Reference:
    """A reference as it was read: RGB, not yet cut, and the identity of its face, [512], raw, where there is one."""

    picture: Image.Image
    identity: Tensor | None = None


class Source(Protocol):
    """Records by index, in a fixed order, read at random by any number of processes.

    captions_from: how many samples have captions, by where they are. caption_places: where they are looked for, in
    words. left_out: what lies in the data and is no sample.
    """

    captions_from: Counter[str]
    caption_places: str
    left_out: LeftOut

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record:
        """The record at `index`. Raises IndexError beyond the end, UnreadableError where its captions are no text."""
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """Its captions alone, without touching the picture. Raises UnreadableError as `read`."""
        ...

    def digest(self) -> str:
        """A hash that changes with the samples, their order or their captions (not with pixels under the same name)."""
        ...


def as_captions(value: Any, name: str) -> tuple[str, ...]:
    """A text, a list of texts or nothing, as the captions of a sample. Raises UnreadableError for anything else."""
    texts = value if isinstance(value, list | tuple) else [value]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise UnreadableError(
            name, "caption", f"it has {value!r:.60} as its caption, expected a text or a list of texts"
        )
    if not all(is_unicode(text) for text in texts if text):
        raise UnreadableError(
            name, "caption", f"its caption {value!r:.60} has half a letter in it: correct or remove it"
        )
    return tuple(text.strip() for text in texts if text and text.strip()) or ("",)


def text_captions(content: bytes, name: str, where: str) -> tuple[str, ...]:
    """The captions of a text file, one in each line. Raises UnreadableError when it is not UTF-8."""
    try:
        return as_captions(content.decode("utf-8-sig").splitlines(), name)
    except UnicodeDecodeError as error:
        raise UnreadableError(
            name, "caption", f"{where} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8 text"
        ) from error


def caption_column(row: Iterable[str], wanted: str) -> str | None:
    """The column of a row that holds its captions: the one asked for, or the first of those that are known."""
    names, has = (wanted,) if wanted else CAPTIONS, set(row)
    return next((name for name in names if name in has), None)
