"""Pictures of scenes: signed distances, antialiased, in plain torch. All pictures are [N, 3, 64, 64] of 0..1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .scenes import BACKGROUND, BACKGROUNDS, COLOUR, COLOURS, PATTERN, SHAPE, SIZE

SIDE = 64
RADIUS = (15.0, 23.0)  # small, big; pixels
SHIFT, TURN, STRETCH, TINT = 4.0, math.radians(8), 0.05, 8 / 255  # largest deviations from the middle
PERIOD, DOT, SHADE = 16, 4.4, 0.62  # of patterns: pixels, pixels, second tone as a share of the background


@dataclass(frozen=True)
class Chance:
    """What a scene leaves open, for N pictures: shift [N, 2] in pixels, turn [N], stretch [N], tints [N, 2, 3]."""

    shift: Tensor
    turn: Tensor
    stretch: Tensor
    tints: Tensor

    def of(self, rows: Tensor | slice) -> Chance:
        """Those of some pictures."""
        return Chance(self.shift[rows], self.turn[rows], self.stretch[rows], self.tints[rows])


def chance(count: int, generator: torch.Generator) -> Chance:
    """Uniform deviations."""

    def between(largest: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * largest

    return Chance(between(SHIFT, 2), between(TURN), between(STRETCH), between(TINT, 2, 3))


def draw(scenes: Tensor, given: Chance, as_sticker: bool = False) -> Tensor:
    """Scenes [N, 5] to pictures. as_sticker: with a white rim and a dark line around it, the base's other look."""
    return paint(scenes, distances(scenes[:, SHAPE], radii(scenes, given), given), given, as_sticker)


def silhouettes(scenes: Tensor, given: Chance) -> Tensor:
    """White shapes on black [N, 3, 64, 64]: what a ControlNet is told."""
    distance = distances(scenes[:, SHAPE], radii(scenes, given), given)
    return (0.5 - distance).clamp(0, 1)[:, None].expand(-1, 3, -1, -1)


def radii(scenes: Tensor, given: Chance) -> Tensor:
    return torch.tensor(RADIUS)[scenes[:, SIZE]] * (1 + given.stretch)


def paint(scenes: Tensor, distance: Tensor, given: Chance, as_sticker: bool = False) -> Tensor:
    """Fill where the distance [N, 64, 64] is negative, on the scene's background and pattern."""
    fill, ground = colours(scenes, given)
    tone = torch.where(pattern_masks()[scenes[:, PATTERN]][:, None], SHADE, 1.0)
    picture = ground * tone
    if as_sticker:
        picture = over(picture, torch.full_like(fill, 0.13), distance - 4.5)
        picture = over(picture, torch.full_like(fill, 0.97), distance - 3.2)
    return over(picture, fill, distance).clamp(0, 1)


def colours(scenes: Tensor, given: Chance) -> tuple[Tensor, Tensor]:
    """Fill and background [N, 3, 1, 1], tinted."""
    fill, ground = (torch.tensor(list(palette.values())) / 255 for palette in (COLOURS, BACKGROUNDS))
    fill = fill[scenes[:, COLOUR]] + given.tints[:, 0]
    ground = ground[scenes[:, BACKGROUND]] + given.tints[:, 1]
    return fill[:, :, None, None], ground[:, :, None, None]


def over(picture: Tensor, colour: Tensor, distance: Tensor) -> Tensor:
    """Paint a colour where the distance is negative, with an edge one pixel wide."""
    cover = (0.5 - distance).clamp(0, 1)[:, None]
    return picture * (1 - cover) + colour * cover


def pattern_masks() -> Tensor:
    """Where each pattern is dark, [4, 64, 64]; their phase is that of the latent grid."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    middle = (PERIOD - 1) / 2
    dots = ((x % PERIOD - middle) ** 2 + (y % PERIOD - middle) ** 2) < DOT**2
    checks = (x // PERIOD + y // PERIOD) % 2 == 1
    return torch.stack([torch.zeros_like(dots), x % PERIOD >= PERIOD // 2, dots, checks])


def distances(shape: Tensor, radius: Tensor, given: Chance) -> Tensor:
    """Signed distances [N, 64, 64] in pixels to shapes [N] of a radius [N], negative inside."""
    y, x = torch.meshgrid(*[torch.arange(SIDE) - (SIDE - 1) / 2] * 2, indexing="ij")
    x, y = x - given.shift[:, 0, None, None], y - given.shift[:, 1, None, None]
    cos, sin = given.turn.cos()[:, None, None], given.turn.sin()[:, None, None]
    x, y = (x * cos + y * sin), (y * cos - x * sin)
    found = torch.empty(len(shape), SIDE, SIDE)
    for number, formula in enumerate(FORMULAS):
        mine = shape == number
        if mine.any():
            found[mine] = formula(x[mine], y[mine], radius[mine, None, None])
    return found


def circle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95 * r


def square(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.84 * r


def triangle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    y = y - 0.2 * r
    side = (math.sqrt(3) / 2) * x.abs() - 0.5 * y
    return torch.maximum(y, side) - 0.56 * r


def star(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Five points: fold the plane into half a point, whose edge goes from the tip to the notch."""
    tip, notch, sector = 1.12 * r, 0.47 * r, math.pi / 5
    angle = torch.atan2(x, -y)
    angle = (torch.remainder(angle + sector, 2 * sector) - sector).abs()
    along, across = torch.hypot(x, y) * angle.cos(), torch.hypot(x, y) * angle.sin()
    edge_x, edge_y = notch * math.cos(sector) - tip, notch * math.sin(sector)
    return ((along - tip) * edge_y - across * edge_x) / torch.hypot(edge_x, edge_y)


def heart(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """A square on its corner, and a half circle on each of its two upper sides."""
    y, half = y - 0.1 * r, 0.9 * r
    diamond = (x.abs() + y.abs() - half) / math.sqrt(2)
    lobe = torch.hypot(x.abs() - half / 2, y + half / 2) - half / math.sqrt(2)
    return torch.minimum(diamond, lobe)


def moon(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    bite = 0.78 * r - torch.hypot(x - 0.45 * r, y)
    return torch.maximum(torch.hypot(x, y) - r, bite)


def cross(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    length, width = 0.98 * r, 0.33 * r
    return torch.minimum(torch.maximum(x - length, y - width), torch.maximum(y - length, x - width))


def ring(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.73 * r).abs() - 0.25 * r


Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
FORMULAS: tuple[Formula, ...] = (circle, square, triangle, star, heart, moon, cross, ring)
