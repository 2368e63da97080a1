"""What a run has written of itself, read again: the lines of its log and its starts, and curves of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.charts import Point

POINTS = 200  # of a curve; more lines are averaged
Lines = Sequence[Mapping[str, Any]]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; none where it is not there, and a line that is cut off is passed over."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def curve(lines: Lines, name: str) -> list[Point]:
    """A number of the log against the steps: means of neighbouring lines, with the least and the most of them."""
    found = [(line["step"], line[name]) for line in lines if "step" in line and _is_number(line.get(name))]
    size = -(-len(found) // POINTS) or 1
    return [_mean(found[start : start + size]) for start in range(0, len(found), size)]


def last(lines: Lines, names: Iterable[str]) -> Mapping[str, Any]:
    """The newest line with one of these numbers; empty where there is none."""
    wanted = set(names)
    return next((line for line in reversed(lines) if wanted & line.keys()), {})


def _mean(values: Sequence[tuple[float, float]]) -> Point:
    numbers = [value for _, value in values]
    step = sum(step for step, _ in values) / len(values)
    return Point(step, sum(numbers) / len(numbers), min(numbers), max(numbers))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
