"""How much, in which layers, when and where an image prompt counts, as a frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

ALL = "all"  # layers: every one, as in the training


@dataclass(frozen=True)
class Curve:
    """A factor over the sampling.

    points: (progress, factor), progress from 0, the start of the sampling, to 1, its end, ascending. The factor is
    linear between two points, jumps where two have the same progress (to the later one's), and is 0 before the first
    point and after the last one: there the image prompt does not act at all.
    Raises ValueError for progress that is outside of 0 to 1 or goes back, and for factors that are not finite.
    """

    points: tuple[tuple[float, float], ...] = ((0.0, 1.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        progress = [place for place, _ in self.points]
        if not all(0 <= place <= 1 for place in progress) or progress != sorted(progress):
            raise ValueError(
                f"a curve's progress is {progress}, expected ascending numbers from 0 to 1: sort its points"
            )
        if not all(math.isfinite(factor) for _, factor in self.points):
            raise ValueError(f"a curve has the points {self.points}: give each of them a number as its factor")

    @classmethod
    def window(cls, start: float, end: float) -> Curve:
        """1 from `start` to `end` (progress, 0 to 1) and 0 outside; nothing where the end is not after the start."""
        return cls(((start, 1.0), (end, 1.0)) if start < end else ())

    @property
    def start(self) -> float:
        """The progress at which the image prompt begins to act."""
        return self.points[0][0] if self.points else 1.0

    @property
    def end(self) -> float:
        """The progress at which it stops to act."""
        return self.points[-1][0] if self.points else 0.0

    @property
    def is_window(self) -> bool:
        """Whether it is 1 wherever it acts, so that nothing has to be multiplied."""
        return all(factor == 1 for _, factor in self.points)

    @property
    def is_zero(self) -> bool:
        """Whether it is 0 all the time."""
        return self.start >= self.end or all(factor == 0 for _, factor in self.points)

    def at(self, progress: float) -> float:
        """The factor at a progress from 0 to 1."""
        if not self.start <= progress <= self.end:
            return 0.0
        for (start, first), (end, last) in reversed(list(zip(self.points, self.points[1:]))):
            if start <= progress <= end:
                return last if end == start else first + (last - first) * (progress - start) / (end - start)
        return self.points[-1][1]


@dataclass(frozen=True, eq=False)
class Influence:
    """What an image prompt is allowed to change.

    weight: the paper's scale, 1 as in the training, 0 nothing; below 0 away from the picture.
    layers: the name of a preset, or checkpoint index to a share of the weight. curve: a factor over the sampling.
    mask: [h, w] or [M, h, w] of 0 to 1, where in the result, for each latent its own or one for all; None: everywhere.
    roles: shares of the weight in the conditional predictions and in the unconditional ones.
    Raises ValueError when a number is not finite or the mask has no pixels.
    """

    weight: float = 1.0
    layers: str | Mapping[int, float] = ALL
    curve: Curve = Curve()
    mask: Tensor | None = None
    roles: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        shares = self.layers.values() if isinstance(self.layers, Mapping) else ()
        for number in (self.weight, *self.roles, *shares):
            if not math.isfinite(number):
                raise ValueError(f"a weight of the image prompt is {number}: give a finite number")
        if self.mask is not None and (self.mask.ndim < 2 or 0 in self.mask.shape):
            shape = tuple(self.mask.shape)
            raise ValueError(f"the mask has no pixels (shape {shape}): connect a mask that is not empty")

    @property
    def masks(self) -> Tensor | None:
        """The mask as [M, h, w]."""
        return None if self.mask is None else self.mask.reshape(-1, *self.mask.shape[-2:])

    @property
    def is_nothing(self) -> bool:
        """Whether the model stays as it is."""
        return self.weight == 0 or self.roles == (0, 0) or self.curve.is_zero
