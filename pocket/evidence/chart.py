"""A chart of curves with their intervals, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from .figures import Figure

WIDTH, HEIGHT = 620, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 130, 30, 44
INKS = ("#0b6e99", "#d1495b", "#3a7d44", "#8a5aab", "#b8860b", "#555555")
TEXT = 'font-family="sans-serif" font-size="12" fill="#333"'


def save_chart(
    path: Path, title: str, across: str, xs: Sequence[float], curves: Mapping[str, Sequence[Figure]], marked: float
) -> None:
    """Shares over xs, in percent, each with its interval as a band; `marked`: an x with a line of its own."""
    most = max(xs)

    def place(x: float, share: float) -> tuple[float, float]:
        return (
            LEFT + x / most * (WIDTH - LEFT - RIGHT),
            TOP + (1 - share) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<text x="{LEFT}" y="18" {TEXT} font-weight="bold">{escape(title)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        (x, y), (end, _) = place(0, share), place(most, share)
        parts.append(f'<line x1="{x}" y1="{y}" x2="{end}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end" {TEXT}>{share:.0%}</text>')
    for x in xs:
        left, y = place(x, 0)
        parts.append(f'<text x="{left:.1f}" y="{y + 17}" text-anchor="middle" {TEXT}>{x:g}</text>')
    middle, _ = place(most / 2, 0)
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" {TEXT}>{escape(across)}</text>')
    (x, low), (_, high) = place(marked, 0), place(marked, 1)
    parts.append(f'<line x1="{x:.1f}" y1="{low}" x2="{x:.1f}" y2="{high}" stroke="#999" stroke-dasharray="4 3"/>')
    for number, (name, figures) in enumerate(curves.items()):
        parts += _curve(
            INKS[number],
            name,
            number,
            [place(x, f.value) for x, f in zip(xs, figures, strict=True)],
            [place(x, f.low) for x, f in zip(xs, figures, strict=True)],
            [place(x, f.high) for x, f in zip(xs, figures, strict=True)],
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


Points = Sequence[tuple[float, float]]


def _curve(ink: str, name: str, number: int, line: Points, low: Points, high: Points) -> list[str]:
    around = _points([*low, *reversed(high)])
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{ink}"/>' for x, y in line)
    y = TOP + 16 + 20 * number
    x = WIDTH - RIGHT + 18
    return [
        f'<polygon points="{around}" fill="{ink}" fill-opacity="0.13"/>',
        f'<polyline points="{_points(line)}" fill="none" stroke="{ink}" stroke-width="2"/>{dots}',
        f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" stroke="{ink}" stroke-width="3"/>',
        f'<text x="{x + 24}" y="{y}" {TEXT}>{escape(name)}</text>',
    ]


def _points(points: Points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
