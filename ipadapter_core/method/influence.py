"""How much, in which layers, when and where an image prompt counts, as a frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .layers import ALL, Layers
from .scaling import SCALINGS, V_ONLY


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
        for point in self.points:
            if not math.isfinite(point[1]):
                raise ValueError(f"a curve has the point {point}: give it a number as its factor")

    @classmethod
    def window(cls, start: float, end: float) -> Curve:
        """1 from `start` to `end` (progress, 0 to 1) and 0 outside; nothing where the end is not after the start."""
        return cls(((start, 1.0), (end, 1.0)) if start < end else ())

    @classmethod
    def spread(cls, factors: Sequence[float]) -> Curve:
        """Factors spread evenly over the whole sampling, the first at its start and the last at its end.

        Raises ValueError when there are none.
        """
        if not factors:
            raise ValueError("a curve has no numbers: give at least one")
        if len(factors) == 1:
            factors = (*factors, *factors)
        last = len(factors) - 1
        return cls(tuple((place / last, float(factor)) for place, factor in enumerate(factors)))

    def within(self, start: float, end: float) -> Curve:
        """The same from `start` to `end` (progress, 0 to 1), and 0 outside."""
        start, end = max(start, self.start), min(end, self.end)
        if not start < end:
            return Curve(())
        # At a jump the later factor counts at the start, the earlier one at the end.
        first = self.at(start)
        last = next((factor for place, factor in self.points if place == end), self.at(end))
        inside = tuple(point for point in self.points if start < point[0] < end)
        return Curve(((start, first), *inside, (end, last)))

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


@dataclass(frozen=True)
class Placement:
    """How pictures, weights over frames and masks are laid on latents.

    beyond: a latent beyond the end of a list gets what is at its start "again", or its "last". grid: masks are averaged
    on the "true" grid of a layer, or bilinear on one that is "guessed" from its number of positions, as in older packs;
    they are then stretched over an area too. windows: which parts of a video are known, "all" kinds of context windows,
    or those of "AnimateDiff" alone.
    """

    beyond: Literal["again", "last"] = "again"
    grid: Literal["true", "guessed"] = "true"
    windows: Literal["all", "AnimateDiff"] = "all"


@dataclass(frozen=True, eq=False)
class Influence:
    """What an image prompt is allowed to change.

    weight: the paper's scale, 1 as in the training, 0 nothing; below 0 away from the picture.
    layers: the name of a preset, a value with its factors, or checkpoint index to a share of the weight.
    curve: a factor over the sampling.
    mask: [h, w] or [M, h, w] of 0 to 1, where in the result, for each latent its own or one for all; None: everywhere.
    roles: shares of the weight in the conditional predictions and in the unconditional ones.
    frames: a factor of the weight for each latent, gone through again where there are more; (): 1 for all.
    scaling: how the weight acts on K' and V', one of SCALINGS. rescale: 0 to 1, how far text and picture together are
    moved to the norm of the text's output, for each position.
    placement: how pictures, frames and masks are laid on latents.
    Raises ValueError when a number is not finite or out of its range, and when the mask has no pixels, or NaN in it.
    """

    weight: float = 1.0
    layers: str | Layers | Mapping[int, float] = ALL
    curve: Curve = Curve()
    mask: Tensor | None = None
    roles: tuple[float, float] = (1.0, 1.0)
    frames: tuple[float, ...] = ()
    scaling: str = V_ONLY
    rescale: float = 0.0
    placement: Placement = Placement()

    def __post_init__(self) -> None:
        shares = self.layers.values() if isinstance(self.layers, Mapping) else ()
        for number in (self.weight, *self.roles, *self.frames, *shares):
            if not math.isfinite(number):
                raise ValueError(f"a weight of the image prompt is {number}: give a finite number")
        if self.scaling not in SCALINGS:
            raise ValueError(f"unknown embeds scaling {self.scaling!r}: choose one of {', '.join(SCALINGS)}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale is {self.rescale}: give a number from 0, nothing, to 1, the text's norm")
        if self.mask is not None and (self.mask.ndim < 2 or 0 in self.mask.shape):
            shape = tuple(self.mask.shape)
            raise ValueError(f"the mask has no pixels (shape {shape}): connect a mask that is not empty")
        if self.mask is not None and not torch.isfinite(self.mask).all():
            raise ValueError("the mask has NaN or infinite values, which would make the result black: make it again")

    @property
    def masks(self) -> Tensor | None:
        """The mask as [M, h, w]."""
        return None if self.mask is None else self.mask.reshape(-1, *self.mask.shape[-2:])

    @property
    def is_nothing(self) -> bool:
        """Whether the model stays as it is."""
        no_frames = bool(self.frames) and not any(self.frames)
        return self.weight == 0 or self.roles == (0, 0) or self.curve.is_zero or no_frames
