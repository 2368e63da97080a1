"""Weights, pictures and prompts over frames, as the older pack makes them: plain lists, written from its behaviour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CURVES = {
    "linear": lambda x: x,
    "ease_in": lambda x: math.sin(math.pi * x / 2),
    "ease_out": lambda x: 1 - math.cos(math.pi * x / 2),
    "ease_in_out": lambda x: (1 - math.cos(math.pi * x)) / 2,
}


@dataclass(frozen=True)
class Asked:
    """The inputs of the weights node, in its order."""

    weights: str = "1.0, 0.0"
    timing: str = "linear"
    frames: int = 0
    start_frame: int = 0
    end_frame: int = 9999
    add_starting_frames: int = 0
    add_ending_frames: int = 0
    method: str = "full batch"


def typed(text: str) -> list[float]:
    return [float(part) for part in text.replace("\n", ",").split(",") if part.strip()]


def one_batch(asked: Asked) -> list[float]:
    """The list of F weights, before pictures repeat it."""
    numbers = typed(asked.weights)
    if asked.timing == "custom":
        return numbers or [0.0]
    first, last = (numbers[0], numbers[-1]) if numbers else (0.0, 1.0)
    frames = max(asked.frames, 2)
    end = min(asked.end_frame, frames)
    n = end - asked.start_frame
    ramp = [first + (last - first) * CURVES[asked.timing](i / (n - 1)) for i in range(n)]
    ramp[-1] = last
    return [first] * asked.start_frame + ramp + [last] * (frames - end)


def over_frames(asked: Asked, pictures: int) -> tuple[list[float], list[int], list[int] | None]:
    """Weights, and the numbers of the pictures in image_1 and image_2 (None: no such output), for P > 0 pictures."""
    once = one_batch(asked)
    length = len(once)
    mirror = [max(once) - (w - min(once)) for w in once]
    if asked.method == "full batch":
        weights, first = once * pictures, [p for p in range(pictures) for _ in range(length)]
        second = None
    elif asked.method == "shift batches":
        weights, first = once * (pictures - 1), [p for p in range(pictures - 1) for _ in range(length)]
        second = [p + 1 for p in first]
    else:
        pairs = [(p, p + 1) if p % 2 == 0 else (p + 1, p) for p in range(pictures - 1)]
        weights = [w for p in range(pictures - 1) for w in (mirror if p % 2 else once)]
        first, second = ([pair[side] for pair in pairs for _ in range(length)] for side in (0, 1))
    before, after = asked.add_starting_frames, asked.add_ending_frames

    def held(numbers: list[int]) -> list[int]:
        return [0] * before + numbers + [pictures - 1] * after

    weights = [weights[0]] * before + weights + [weights[-1]] * after
    return weights, held(first), None if second is None else held(second)


def schedule(prompts: str, pictures: int, asked: Asked) -> str:
    """The text of a prompt schedule for P pictures."""
    lines = [line for line in prompts.split("\n") if line.strip()]
    lines = [lines[min(p, len(lines) - 1)] for p in range(pictures)]
    at = [(p * asked.frames + asked.add_starting_frames, line) for p, line in enumerate(lines)]
    if asked.add_starting_frames:
        at = [(0, lines[0]), *at]
    if asked.add_ending_frames:
        at.append((pictures * asked.frames + asked.add_starting_frames, lines[-1]))
    return "".join(f'"{frame}": "{line}",\n' for frame, line in at)


def combined(one: float | Sequence[float], two: float | Sequence[float]) -> tuple[list[float], int]:
    lists = [[w] if isinstance(w, (int, float)) else list(w) for w in (one, two)]
    return lists[0] + lists[1], len(lists[0]) + len(lists[1])
