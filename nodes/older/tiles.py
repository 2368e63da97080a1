"""A picture cut into the tiles of the older tiled nodes, with a mask for the place of each.

Shapes: B pictures, M masks, H and W pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ipadapter_core.method.sharpen import sharpened
from .pictures import centre, resized

TILE = 256  # pixels of a side
NEAR_SQUARE = (0.75, 1.33)  # of height to width
LONGEST = 4  # of a long side to a short one


def tiles_of(image: Tensor, mask: Tensor | None, sharpening: float) -> tuple[list[Tensor], list[Tensor]]:
    """Tiles [B, 256, 256, C] of pictures [B, H, W, C], rows first, and for each the mask [M, h, w] of its place."""
    if mask is None:
        mask = torch.ones(1, *image.shape[1:3])
    mask = F.interpolate(
        mask.reshape(-1, 1, *mask.shape[-2:]).float(), image.shape[1:3], mode="bicubic", antialias=True
    )
    height, width, cut = _size(*image.shape[1:3])
    image = centre(image[..., :3].movedim(-1, 1), *cut).movedim(1, -1)
    image = sharpened(resized(image, height, width, "LANCZOS"), sharpening)
    mask = F.interpolate(centre(mask, *cut), (height, width), mode="bicubic", antialias=True)[:, 0]
    tiles, masks = [], []
    for top in _starts(height):
        for left in _starts(width):
            place = (slice(None), slice(top, top + TILE), slice(left, left + TILE))
            tiles.append(image[place])
            inside = torch.zeros_like(mask)
            inside[place] = mask[place]
            masks.append(inside)
    return tiles, masks


def _size(height: int, width: int) -> tuple[int, int, tuple[int, int]]:
    """Height and width that a picture is resized to, and the centre of it that is used."""
    short = min(height, width)
    if NEAR_SQUARE[0] < height / width < NEAR_SQUARE[1]:
        return 2 * TILE, 2 * TILE, (short, short)
    cut = (min(height, LONGEST * short), min(width, LONGEST * short))
    long = int(TILE * max(cut) / short)
    return (long, TILE, cut) if height > width else (TILE, long, cut)


def _starts(side: int) -> list[int]:
    """Where tiles begin along a side, spread so that the last ends with it."""
    count = math.ceil(side / TILE)
    overlap = (TILE * count - side) / (count - 1) if count > 1 else 0.0
    return [int(place * (TILE - overlap)) for place in range(count)]
