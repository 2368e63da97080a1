"""A landscape in oil, painted by a few thousand strokes: `python -m tools.painting FILE`.

The reference of a style among the pictures of *Example Picture*. Each stroke follows a field of directions and takes
the colour that lies under it, coarse ones first (after Hertzmann, "Painterly rendering with curved brush strokes of
multiple sizes", 1998). What is painted, a valley under a moon, is a handful of formulas, so nobody else owns it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]
SIDE, SCALE = 512, 2  # pixels of the picture, and how much larger it is painted
MOON = (0.72, 0.22)  # of width and height
STARS = [(0.12, 0.12), (0.3, 0.27), (0.45, 0.09), (0.92, 0.42), (0.07, 0.4), (0.56, 0.33)]
# Brush width in pixels, steps of a stroke, distance of strokes: coarse layers cover, fine ones draw.
LAYERS = [(15.0, 9, 8.0), (8.0, 9, 6.0), (4.5, 8, 4.4)]


def rgb(text: str) -> Array:
    return np.array([int(text[place : place + 2], 16) for place in (0, 2, 4)], float)


def mixed(one: Array, other: Array, share: Array) -> Array:
    return one + (other - one) * np.clip(share, 0, 1)[..., None]


def ridge(x: Array, level: float, height: float, phase: float) -> Array:
    """How far down a line of hills stands, 0 to 1 of the height."""
    return level - height * (np.sin(5 * x + phase) + 0.5 * np.sin(11 * x + 2 * phase) + 0.2 * np.sin(29 * x))


def scene(x: Array, y: Array) -> tuple[Array, Array]:
    """Colours [..., 3] of 0..255 and the angles that strokes follow, at places of 0..1."""
    colour = mixed(rgb("1b2a6b"), rgb("4d83c4"), y / 0.55)
    angle = 0.5 * np.sin(7 * x + 3 * y) + 0.4 * np.sin(9 * y)
    for (left, top), size, light in [(MOON, 0.085, "ffe48a"), *((star, 0.022, "fff3c4") for star in STARS)]:
        away = np.hypot(x - left, y - top)
        near = np.exp(-((away / (3.2 * size)) ** 2))
        around = np.arctan2(y - top, x - left) + np.pi / 2
        angle = np.where(near > 0.2, around + 0.15, angle)
        colour = mixed(colour, rgb("9cc0e0"), 0.75 * near)
        colour = mixed(colour, rgb(light), np.clip(6 * (1 - away / size), 0, 1))
    hills = [(0.56, 0.035, 0.3, "3d4f8f"), (0.63, 0.04, 2.0, "2f6b6f"), (0.72, 0.045, 4.2, "3f7d3a")]
    for level, height, phase, tone in hills:
        below = y - ridge(x, level, height, phase)
        slope = np.arctan2(np.gradient(ridge(x, level, height, phase), axis=1), np.gradient(x, axis=1))
        colour = np.where((below > 0)[..., None], mixed(rgb(tone) * 1.25, rgb(tone) * 0.7, below / 0.1), colour)
        angle = np.where(below > 0, slope + 0.5 * np.sin(24 * x) * (below > 0.03), angle)
    field = y - ridge(x, 0.82, 0.02, 1.0)
    rows = 0.5 + 0.5 * np.sin(40 * (x - 0.5) / (0.35 + np.maximum(field, 0)))
    wheat = mixed(rgb("c98a1e"), rgb("f3cf57"), rows)
    colour = np.where((field > 0)[..., None], wheat, colour)
    angle = np.where(field > 0, np.arctan2(0.35 + field, 1.4 * (x - 0.5)), angle)
    cypress = 1 - np.abs(x - 0.17 - 0.012 * np.sin(18 * y)) / (0.075 * np.clip((y - 0.3) / 0.45, 0, 1) ** 0.8 + 1e-6)
    is_tree = (cypress > 0) & (y > 0.3) & (y < 0.93)
    colour = np.where(is_tree[..., None], mixed(rgb("12331f"), rgb("3a6b33"), cypress * np.sin(60 * y + 9 * x)), colour)
    angle = np.where(is_tree, np.pi / 2 + 0.5 * np.sin(30 * y), angle)
    return colour, angle


def stroke(canvas: ImageDraw.ImageDraw, at: Array, angles: Array, width: float, steps: int, tone: Array) -> None:
    """One bent stroke, and a lighter thread of paint on its upper side."""
    points, place = [], at.copy()
    for _ in range(steps):
        points.append(tuple(place))
        row, column = np.clip(place[::-1].astype(int), 0, len(angles) - 1)
        place = place + 0.8 * width * np.array([np.cos(angles[row, column]), np.sin(angles[row, column])])
    body, light = (tuple(int(value) for value in np.clip(one, 0, 255)) for one in (tone, tone * 1.12 + 10))
    canvas.line(points, fill=body, width=round(width), joint="curve")
    for end in (points[0], points[-1]):
        canvas.ellipse([end[0] - width / 2, end[1] - width / 2, end[0] + width / 2, end[1] + width / 2], fill=body)
    thread = [(left - 0.15 * width, top - 0.22 * width) for left, top in points]
    canvas.line(thread, fill=light, width=max(1, round(0.22 * width)), joint="curve")


def painting(seed: int = 0) -> Image.Image:
    chance, whole = np.random.default_rng(seed), SIDE * SCALE
    y, x = np.mgrid[:whole, :whole] / whole
    colours, angles = scene(x, y)
    scenery = Image.fromarray(colours.clip(0, 255).astype(np.uint8))
    picture = scenery.copy()
    canvas = ImageDraw.Draw(picture)
    for width, steps, apart in LAYERS:
        seen = np.asarray(scenery.filter(ImageFilter.GaussianBlur(width)))
        grid = np.mgrid[: whole : apart * SCALE, : whole : apart * SCALE].reshape(2, -1).T[:, ::-1]
        for at in chance.permutation(grid + chance.normal(0, apart, grid.shape)):
            row, column = np.clip(at[::-1].astype(int), 0, whole - 1)
            tone = seen[row, column] * chance.normal(1, 0.07) + chance.normal(0, 7, 3)
            stroke(canvas, at, angles, width * SCALE, steps, tone)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    painting().save(parser.parse_args().file, quality=68, method=6)


if __name__ == "__main__":
    main()
