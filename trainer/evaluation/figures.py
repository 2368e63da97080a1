"""Means over references with bootstrap intervals, and whether two systems differ by more than chance.

A reference counts once, by the mean over its samples: samples of one reference are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PART = 64  # resamples at a time, so that memory stays small


@dataclass(frozen=True)
class Figure:
    """A mean over `count` references, and the ends of its interval."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def percent(self) -> str:
        """The same for a share."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class Difference:
    """How much more the second has than the first, over references that both have. p: two-sided, of no difference."""

    value: float
    low: float
    high: float
    p: float
    count: int

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def of_references(rows: Sequence[Sequence[float | None]]) -> Tensor:
    """The mean over samples of each reference, [R] fp64; NaN where no sample has a score."""
    means = []
    for row in rows:
        there = [value for value in row if value is not None]
        means.append(sum(there) / len(there) if there else float("nan"))
    return torch.tensor(means, dtype=torch.double)


def resampled_means(values: Tensor, resamples: int) -> Tensor:
    """Means [K] of values [R] drawn anew with repetition, by a fixed seed."""
    generator, found = torch.Generator().manual_seed(0), []
    for start in range(0, resamples, PART):
        rows = torch.randint(len(values), (min(PART, resamples - start), len(values)), generator=generator)
        found.append(values[rows].mean(1))
    return torch.cat(found)


def mean(values: Tensor, resamples: int, covered: float) -> Figure | None:
    """Of values [R] of references; NaN are left out, and None: there is nothing else. The percentile bootstrap."""
    values = values[~values.isnan()]
    if not len(values):
        return None
    low, high = resampled_means(values, resamples).quantile(_ends(covered)).tolist()
    return Figure(float(values.mean()), low, high, len(values))


def difference(first: Tensor, second: Tensor, resamples: int, covered: float) -> Difference | None:
    """Of the same references [R] under two systems: the paired percentile bootstrap. None: they share none."""
    values = second - first
    values = values[~values.isnan()]
    if not len(values):
        return None
    means = resampled_means(values, resamples)
    low, high = means.quantile(_ends(covered)).tolist()
    below, above = float((means <= 0).double().mean()), float((means >= 0).double().mean())
    p = min(1.0, 2 * max(min(below, above), 1 / resamples))
    return Difference(float(values.mean()), low, high, p, len(values))


def _ends(covered: float) -> Tensor:
    return torch.tensor([(1 - covered) / 2, (1 + covered) / 2], dtype=torch.double)
