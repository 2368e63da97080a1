"""A picture in tiles: where they lie, where each counts, and their features merged into one picture's.

Shapes: T tiles, row by row, R rows and C columns of them; B pictures; S hidden states of F, of which g x g are patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, isqrt

import torch
from einops import rearrange, reduce
from torch import Tensor

MAX_TILES = 16  # along one side
NEAR_SQUARE = 4 / 3  # up to this ratio of its sides, a picture is cut in 2 x 2 by itself


@dataclass(frozen=True)
class Tiling:
    """Tiles of a picture: `tops` and `lefts` in pixels, all of one `height` and `width`; together they cover it."""

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    height: int
    width: int

    @property
    def boxes(self) -> list[tuple[int, int]]:
        """Top and left of each tile, row by row."""
        return [(top, left) for top in self.tops for left in self.lefts]

    def cut(self, picture: Tensor) -> Tensor:
        """The tiles [T, height, width, C] of a picture [H, W, C]."""
        return torch.stack([picture[top : top + self.height, left : left + self.width] for top, left in self.boxes])


def tiling(height: int, width: int, rows: int = 0, columns: int = 0, overlap: float = 0.0) -> Tiling:
    """Tiles of a picture of height x width pixels: squares, where so many of them can cover it.

    rows, columns: 0 for as many as squares need; both 0: one along the shorter side, or 2 x 2 for a picture that is
    nearly square. overlap: the part of a tile that it shares at least with the next one, 0..0.5.
    Raises ValueError for numbers out of range.
    """
    if not 0 <= overlap <= 0.5:
        raise ValueError(f"the overlap of tiles is {overlap}, expected 0 (none) to 0.5 (half a tile)")
    if not (0 <= rows <= MAX_TILES and 0 <= columns <= MAX_TILES):
        raise ValueError(
            f"{rows} rows and {columns} columns of tiles: choose 1 to {MAX_TILES} of them, or 0 for as many as fit"
        )
    rows, columns = _counts(height, width, rows, columns, overlap)
    side = max(ceil(_side(height, rows, overlap)), ceil(_side(width, columns, overlap)))
    tall, wide = min(side, height), min(side, width)
    return Tiling(_starts(height, tall, rows), _starts(width, wide, columns), tall, wide)


def _counts(height: int, width: int, rows: int, columns: int, overlap: float) -> tuple[int, int]:
    """Rows and columns; one that is 0 becomes what the squares of the other need."""
    if not rows and not columns:
        if max(height, width) < NEAR_SQUARE * min(height, width):
            return 2, 2
        rows, columns = (0, 1) if height > width else (1, 0)
    if not rows:
        return _needed(height, _side(width, columns, overlap), overlap), columns
    return rows, columns or _needed(width, _side(height, rows, overlap), overlap)


def _needed(length: int, side: float, overlap: float) -> int:
    """How many tiles of a side fill a length."""
    return min(MAX_TILES, max(1, ceil((length / side - overlap) / (1 - overlap) - 1e-9)))


def _side(length: int, count: int, overlap: float) -> float:
    """Of `count` tiles that share `overlap` of themselves with the next, and fill a length."""
    return length / (count - (count - 1) * overlap)


def _starts(length: int, tile: int, count: int) -> tuple[int, ...]:
    if count == 1:
        return (0,)
    return tuple(int(number * (length - tile) / (count - 1) + 0.5) for number in range(count))


def tile_masks(tiles: Tiling, height: int, width: int, size: tuple[int, int], is_soft: bool = True) -> Tensor:
    """Where each tile counts in a picture of height x width pixels: [T, *size] of 0..1, 1 in sum at every place.

    size: height and width of the masks. is_soft: from one tile to the next in a ramp as wide as what they share; else
    in a step in its middle. No tile counts outside of itself.
    """
    down = _shares(tiles.tops, tiles.height, _places(height, size[0]), is_soft)
    across = _shares(tiles.lefts, tiles.width, _places(width, size[1]), is_soft)
    return rearrange(down[:, None, :, None] * across[None, :, None, :], "r c h w -> (r c) h w")


def _places(length: int, count: int) -> Tensor:
    """Middles of `count` pixels that fill a length."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) * length / count


def _shares(starts: tuple[int, ...], tile: int, places: Tensor, is_soft: bool) -> Tensor:
    """[tiles, places]: step k goes from 0 to 1 where tile k takes over; each tile has its step less the next one's."""
    steps = [torch.ones_like(places)]
    for start, end in zip(starts[1:], (before + tile for before in starts[:-1])):
        if is_soft and end > start:
            steps.append(((places - start) / (end - start)).clamp(0, 1))
        else:
            steps.append((places >= (start + end) / 2).double())
    steps.append(torch.zeros_like(places))
    return torch.stack([mine - following for mine, following in pairwise(steps)]).float()


def merged_pooled(features: Tensor, rows: int, columns: int) -> Tensor:
    """Pooled features of B pictures' tiles [B T, F] as one picture's: their mean, [B, F]."""
    return reduce(features, "(b r c) f -> b f", "mean", r=rows, c=columns)


def merged_states(states: Tensor, rows: int, columns: int) -> Tensor:
    """Hidden states of B pictures' tiles [B T, S, F] as one picture's [B, S, F].

    The tiles' patches are laid out as the picture, R g x C g, and averaged in blocks of R x C to g x g; the class
    tokens are averaged.
    """
    side = isqrt(states.shape[1])
    before = states.shape[1] - side * side  # the class token, where the encoder has one
    tokens = reduce(states[:, :before], "(b r c) s f -> b s f", "mean", r=rows, c=columns)
    whole = rearrange(states[:, before:], "(b r c) (y x) f -> b (r y) (c x) f", r=rows, c=columns, y=side)
    patches = reduce(whole, "b (y r) (x c) f -> b (y x) f", "mean", r=rows, c=columns)
    return torch.cat([tokens, patches], dim=1)
