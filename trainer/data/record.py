"""What a source of data gives: records, their pictures not yet decoded; and references as they were read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from .identity import Identity
from .pictures import Picture


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
    """Records by index, in a fixed order, read at random by any number of processes."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record:
        """The record at `index`. Raises IndexError beyond the end, ValueError for captions that are no text."""
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """Its captions alone, without touching the picture."""
        ...

    def digest(self) -> str:
        """A hash that changes with the samples, their order or their captions (not with pixels under the same name)."""
        ...


def as_captions(value: Any, where: str) -> tuple[str, ...]:
    """A text, a list of texts or nothing, as captions. Raises ValueError for anything else."""
    texts = value if isinstance(value, list | tuple) else [value]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError(f"{where} has {value!r:.60} as its caption: expected a text or a list of texts")
    return tuple(text.strip() for text in texts if text and text.strip()) or ("",)
