"""Every text of a dataset once, numbered, for a cache."""

from __future__ import annotations

import hashlib

import numpy as np
from tqdm.auto import tqdm

from ..data.cached import EMPTY
from ..data.record import Source, UnreadableError


class Texts:
    """Every text once, by the order in which the data has them; the empty text is number 0."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._number: dict[bytes, int] = {_digest(""): EMPTY}
        first = [-1]
        for index in tqdm(range(len(source)), desc="reading captions", unit="sample", leave=False, dynamic_ncols=True):
            for text in self._captions(index):
                if self._number.setdefault(_digest(text), len(first)) == len(first):
                    first.append(index)
        self._first = np.array(first)  # the sample that has a text first

    def _captions(self, index: int) -> tuple[str, ...]:
        """A sample's captions; the empty one where they cannot be read: the sample is skipped and named later."""
        try:
            return self.source.captions(index)
        except UnreadableError:
            return ("",)

    def __len__(self) -> int:
        return len(self._first)

    def numbers(self, index: int) -> list[int]:
        """The numbers of a sample's captions."""
        return [self._number[_digest(text)] for text in self._captions(index)]

    def of(self, numbers: range) -> list[str]:
        """The texts of these numbers."""
        return [self._text(number) for number in numbers]

    def _text(self, number: int) -> str:
        if number == EMPTY:
            return ""
        captions = self._captions(int(self._first[number]))
        return next(text for text in captions if self._number[_digest(text)] == number)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
