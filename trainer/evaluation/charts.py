"""Inline SVG: a figure against the weight of the image prompt, or a run's steps, with its interval, a line for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 260, 48, 34, 14  # pixels
RIGHT = 12
SHORT = 12  # characters of a name that leaves room for four in a row, not three
MARKED, TICKS = 12, 5  # as many places on the x axis are each marked and named; of more, some evenly spread ones
COLOURS = ("#1c5fd0", "#d0571c", "#1c9a5b", "#8a3fc4", "#7a6a10", "#b01c5f", "#444a55")


class Point(NamedTuple):
    """weight: of the image prompt, or whatever else stands on the x axis."""

    weight: float
    value: float
    low: float
    high: float


def chart(title: str, lines: Mapping[str, Sequence[Point]], against: str = "the weight") -> str:
    """One plot; the name of each line stands below it. Lines without points are left out."""
    lines = {name: sorted(points) for name, points in lines.items() if points}
    every = [point for points in lines.values() for point in points]
    if not every:
        return ""
    x0, x1 = _room([point.weight for point in every])
    y0, y1 = _room([end for point in every for end in (point.low, point.high)])

    def x(value: float) -> float:
        return LEFT + (value - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y0) / (y1 - y0) * (HEIGHT - BOTTOM - TOP)

    parts = [f'<text x="{LEFT}" y="11" class="t">{escape(title)} against {escape(against)}</text>']
    for step in range(5):
        at = y0 + (y1 - y0) * step / 4
        parts.append(f'<path d="M{LEFT} {y(at):.1f}H{WIDTH - RIGHT}" class="g"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y(at) + 4:.1f}" text-anchor="end">{at:.3g}</text>')
    places = sorted({point.weight for point in every})
    is_few = len(places) <= MARKED
    for place in places if is_few else places[:: -(-len(places) // TICKS)]:
        name = f"{place:,.0f}" if abs(place) >= 1000 else f"{place:g}"
        parts.append(f'<text x="{x(place):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{name}</text>')
    columns = 4 if len(lines) > 3 and max(map(len, lines)) <= SHORT else 3
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        band = [f"{x(p.weight):.1f},{y(p.high):.1f}" for p in points]
        band += [f"{x(p.weight):.1f},{y(p.low):.1f}" for p in reversed(points)]
        path = " ".join(f"{x(p.weight):.1f},{y(p.value):.1f}" for p in points)
        parts.append(f'<polygon points="{" ".join(band)}" fill="{colour}" opacity=".15"/>')
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marked = points if is_few else []
        parts += [f'<circle cx="{x(p.weight):.1f}" cy="{y(p.value):.1f}" r="3" fill="{colour}"/>' for p in marked]
        parts.append(
            f'<text x="{LEFT + 8 + 390 // columns * (number % columns)}" y="{HEIGHT - 4 - 12 * (number // columns)}" '
            f'style="fill:{colour}">'
            f"{escape(name)}</text>"
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">{"".join(parts)}</svg>'


def _room(values: Sequence[float]) -> tuple[float, float]:
    """The least and the most with a little room."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(low) or 0.05
    return low - room, high + room
