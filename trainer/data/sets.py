"""Several data sets as one: their samples one after another, each set with its repeats, prefix and suffix."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..settings.config import SetConfig
from .batch import Skipped
from .left_out import LeftOut
from .record import Record, Source, UnreadableError


class Sets:
    """A source of several. A sample's name begins with its set's.

    repeats: how many times each sample comes in an epoch.
    """

    def __init__(self, sets: Sequence[SetConfig], sources: Sequence[Source]) -> None:
        self.sets, self.sources = sets, sources
        self.names = set_names(sets)
        self.ends = np.cumsum([len(source) for source in sources])
        self.repeats: NDArray[np.int64] = np.repeat([one.repeats for one in sets], [len(source) for source in sources])
        self.captions_from, self.left_out = Counter[str](), LeftOut()
        self.caption_places = "; ".join(dict.fromkeys(source.caption_places for source in sources))
        for name, source in zip(self.names, sources, strict=True):
            self.captions_from.update(source.captions_from)
            self.left_out.faults += [
                dataclasses.replace(fault, name=f"{name}: {fault.name}") for fault in source.left_out.faults
            ]
            for kind, count in source.left_out.counts.items():
                self.left_out.counts[kind] += count
                named = self.left_out.names.setdefault(kind, [])
                named += [f"{name}: {one}" for one in source.left_out.names[kind]]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, index: int) -> Record:
        number, inner = self._find(index)
        try:
            record = self.sources[number].read(inner)
        except UnreadableError as error:
            raise self._named(number, error.skipped) from error
        name = f"{self.names[number]}: {record.name}"
        return dataclasses.replace(record, name=name, captions=self._dressed(number, record.captions))

    def captions(self, index: int) -> tuple[str, ...]:
        number, inner = self._find(index)
        try:
            return self._dressed(number, self.sources[number].captions(inner))
        except UnreadableError as error:
            raise self._named(number, error.skipped) from error

    def digest(self) -> str:
        """A hash of all sets, their order and what is put around their captions."""
        found = [(source.digest(), one.prefix, one.suffix) for source, one in zip(self.sources, self.sets, strict=True)]
        return hashlib.sha256(repr(found).encode()).hexdigest()

    def lines(self) -> list[str]:
        """What each set is, and how much of an epoch."""
        whole = int(self.repeats.sum())
        return [
            f"set {name}: {len(source):,} samples x {one.repeats}, {len(source) * one.repeats / whole:.1%} of an epoch"
            for name, source, one in zip(self.names, self.sources, self.sets, strict=True)
        ]

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = int(np.searchsorted(self.ends, index, side="right"))
        return number, index - (int(self.ends[number - 1]) if number else 0)

    def _dressed(self, number: int, captions: tuple[str, ...]) -> tuple[str, ...]:
        one = self.sets[number]
        return tuple(f"{one.prefix}{caption}{one.suffix}".strip() for caption in captions)

    def _named(self, number: int, skipped: Skipped) -> UnreadableError:
        return UnreadableError(f"{self.names[number]}: {skipped.name}", skipped.kind, skipped.reason)


def repeats_of(source: Source) -> NDArray[np.int64] | None:
    """How many times each sample comes in an epoch; None where each comes once."""
    return source.repeats if isinstance(source, Sets) and (source.repeats > 1).any() else None


def epoch_length(source: Source) -> int:
    """Samples of an epoch, repeats counted."""
    return int(source.repeats.sum()) if isinstance(source, Sets) else len(source)


def set_names(sets: Sequence[SetConfig]) -> list[str]:
    """Sets by the last part of their source's name; by the whole where two have the same, and numbered where needed."""
    for names in (
        [Path(one.source).name for one in sets],
        [one.source for one in sets],
        [f"{one.source} ({number})" for number, one in enumerate(sets, 1)],
    ):
        if len(set(names)) == len(names):
            break
    return names
