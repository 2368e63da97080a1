"""Weights over frames as the older nodes made them, with the pictures that they are for.

Shapes: P pictures, F weights of one picture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

RAMPS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "ease_in": lambda x: math.sin(math.pi * x / 2),
    "ease_out": lambda x: 1 - math.cos(math.pi * x / 2),
    "ease_in_out": lambda x: (1 - math.cos(math.pi * x)) / 2,
}


@dataclass(frozen=True)
class Strategy:
    """The typed inputs, and P of the pictures that they were used for (`frame_count`)."""

    weights: str = "1.0, 0.0"
    timing: str = "linear"
    frames: int = 0
    start_frame: int = 0
    end_frame: int = 9999
    add_starting_frames: int = 0
    add_ending_frames: int = 0
    method: str = "full batch"
    frame_count: int = 0

    @staticmethod
    def of(inputs: dict[str, Any]) -> Strategy:
        """From a socket of any pack, or a node's inputs; what is unknown is left out."""
        known = Strategy.__dataclass_fields__
        return Strategy(**{name: value for name, value in inputs.items() if name in known and value is not None})


def weights(
    image: Tensor | None = None, weights_strategy: dict[str, Any] | None = None, **typed: Any
) -> tuple[Any, ...]:
    """(weights, the same reversed, how many, first pictures, second pictures, the strategy)."""
    strategy = Strategy.of({**(weights_strategy or {}), **typed})
    count = 0 if image is None else len(image)
    strategy = Strategy.of({**asdict(strategy), "frame_count": count})
    once = one_ramp(strategy)
    first = second = None
    total = once
    if image is not None:
        total, first, second = METHODS[strategy.method](once, image)
        total, first, second = _with_edges(total, first, second, image, strategy)
    return total, total[::-1], len(total), first, second, asdict(strategy)


def one_ramp(strategy: Strategy) -> list[float]:
    """The weights of one picture: as typed, or from the first typed number to the last."""
    numbers = _numbers(strategy.weights)
    if strategy.timing == "custom":
        return numbers or [0.0]
    start, end = (numbers[0], numbers[-1]) if numbers else (0.0, 1.0)
    frames = max(2, strategy.frames)
    begin, stop = strategy.start_frame, min(strategy.end_frame, frames)
    between = stop - begin
    if between == 1:
        raise ValueError(
            f"the weights change within one frame ({begin} to {stop}): set end_frame at least 2 after start_frame"
        )
    ramp = iter(_ramp(strategy.timing, start, end, between))
    return [start if frame < begin else next(ramp) if frame < stop else end for frame in range(frames)]


def _ramp(timing: str, start: float, end: float, count: int) -> list[float]:
    if timing == "random":
        return [random.uniform(start, end) for _ in range(count)]
    if timing not in RAMPS:
        raise ValueError(f"unknown timing {timing!r}: choose custom, random or one of {', '.join(RAMPS)}")
    eased = [start + (end - start) * RAMPS[timing](frame / (count - 1)) for frame in range(count)]
    return [*eased[:-1], end]


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.replace("\n", ",").split(",") if word.strip()]
    except ValueError as error:
        raise ValueError(f"the weights are {text!r}: write numbers with commas or lines between them") from error


Batches = tuple[list[float], Tensor, Tensor | None]


def _full(once: list[float], image: Tensor) -> Batches:
    return once * len(image), image.repeat_interleave(len(once), 0), None


def _shift(once: list[float], image: Tensor) -> Batches:
    _at_least_two(image)
    held = [part.repeat_interleave(len(once), 0) for part in (image[:-1], image[1:])]
    return once * (len(image) - 1), held[0], held[1]


def _alternate(once: list[float], image: Tensor) -> Batches:
    _at_least_two(image)
    low, high = min(once), max(once)
    mirrored = [high - (weight - low) for weight in once]
    stretches = range(len(image) - 1)
    total = [weight for stretch in stretches for weight in (mirrored if stretch % 2 else once)]
    even = [stretch + stretch % 2 for stretch in stretches]
    odd = [stretch + 1 - stretch % 2 for stretch in stretches]
    return total, *(image[rows].repeat_interleave(len(once), 0) for rows in (even, odd))  # type: ignore[return-value]


def _at_least_two(image: Tensor) -> None:
    if len(image) < 2:
        raise ValueError("this method goes from picture to picture, and there is one: give two, or use 'full batch'")


METHODS = {"full batch": _full, "shift batches": _shift, "alternate batches": _alternate}


def _with_edges(
    total: list[float], first: Tensor, second: Tensor | None, image: Tensor, strategy: Strategy
) -> tuple[list[float], Tensor, Tensor | None]:
    """With frames before and after, of the first and the last weight and picture."""
    before, after = strategy.add_starting_frames, strategy.add_ending_frames

    def held(part: Tensor) -> Tensor:
        start, end = (image[row : row + 1 or None].repeat(count, 1, 1, 1) for row, count in ((0, before), (-1, after)))
        return torch.cat([start, part, end])

    total = [total[0]] * before + total + [total[-1]] * after
    return total, held(first), None if second is None else held(second)


def prompt_schedule(weights_strategy: dict[str, Any], prompt: str | None = "") -> tuple[str]:
    """The text of each picture at its first frame, as schedules of prompts are written."""
    strategy = Strategy.of(weights_strategy)
    count = strategy.frame_count
    lines = [line for line in (prompt or "").split("\n") if line.strip()] or [""]
    lines = [lines[min(row, len(lines) - 1)] for row in range(count)]
    before, step = strategy.add_starting_frames, strategy.frames
    entries = [(0, lines[0])] if before and lines else []
    entries += [(row * step + before, line) for row, line in enumerate(lines)]
    if strategy.add_ending_frames and lines:
        entries.append((count * step + before, lines[-1]))
    return ("".join(f'"{frame}": "{line}",\n' for frame, line in entries),)


def combine(weights_1: float | Sequence[float] = 0.0, weights_2: float | Sequence[float] = 0.0) -> tuple[Any, int]:
    """Both lists, or numbers, as one list, and how many."""
    joined = [
        number for part in (weights_1, weights_2) for number in (part if isinstance(part, list | tuple) else [part])
    ]
    return joined, len(joined)
