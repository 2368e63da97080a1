"""Weights over the frames of a video, from keyframes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

# From one keyframe to the next: progress 0 to 1 between them, to how far the weight has come.
EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "ease in": lambda x: x * x,
    "ease out": lambda x: 1 - (1 - x) ** 2,
    "ease in-out": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "hold": lambda _: 0.0,
}


def frame_weights(keyframes: str, count: int, easing: str = "linear") -> list[float]:
    """A weight for each of `count` frames.

    keyframes: "0: 0, 12: 1", frames counted from 0; before the first and after the last one its weight stays.
    easing: one of EASINGS. Raises ValueError for keyframes that cannot be read, and for an unknown easing.
    """
    if easing not in EASINGS:
        raise ValueError(f"unknown easing {easing!r}: choose one of {', '.join(EASINGS)}")
    keys = sorted(_keyframes(keyframes).items())
    weights = []
    for frame in range(count):
        before = [key for key in keys if key[0] <= frame]
        after = [key for key in keys if key[0] > frame]
        if not before or not after:
            weights.append(before[-1][1] if before else after[0][1])
            continue
        (start, first), (end, last) = before[-1], after[0]
        weights.append(first + (last - first) * EASINGS[easing]((frame - start) / (end - start)))
    return weights


def _keyframes(text: str) -> dict[int, float]:
    keys = {}
    for part in re.split(r"[,;\n]", text):
        if not part.strip():
            continue
        frame, colon, weight = part.partition(":")
        try:
            keys[int(frame)] = float(weight)
        except ValueError:
            colon = ""
        if not colon or keys[int(frame)] != keys[int(frame)] or math.isinf(keys[int(frame)]):
            raise ValueError(
                f"keyframes: {part.strip()!r} cannot be read: write a frame, a colon and a weight, as in '0: 0, 12: 1'"
            )
    if not keys:
        raise ValueError("there are no keyframes: write at least one, as in '0: 1'")
    return keys
