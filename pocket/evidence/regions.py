"""A ruler for parts of a picture, which the judge of whole pictures cannot see: the drawing that explains them best.

Every fill colour with every background and pattern is a drawing without its outline: each pixel is the nearer of the
fill and the patterned ground. The one with the least squared error is what the region shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..world.drawing import SHADE, pattern_masks
from ..world.scenes import BACKGROUND, BACKGROUNDS, COLOUR, COLOURS, COUNTS, PATTERN

LARGEST = 0.02  # mean squared error; drawings have 0.003 at most, noise 0.07. Above it the region shows none
PART = 32  # pictures at a time


def told(pictures: Tensor, rows: slice, columns: slice = slice(None)) -> Tensor:
    """A part of pictures [N, 3, 64, 64] to colour, background and pattern [N, 3]; -1 where none explains it."""
    return torch.cat([_told(part[..., rows, columns], rows, columns) for part in pictures.split(PART)])


def wanted(scenes: Tensor) -> Tensor:
    """The same three attributes of scenes [N, 5]."""
    return scenes[:, [COLOUR, BACKGROUND, PATTERN]]


def _told(pictures: Tensor, rows: slice, columns: slice) -> Tensor:
    fills, grounds = (torch.tensor(list(palette.values())) / 255 for palette in (COLOURS, BACKGROUNDS))
    tones = torch.where(pattern_masks()[..., rows, columns], SHADE, 1.0)
    drawn = grounds[:, None, :, None, None] * tones[None, :, None]  # backgrounds, patterns, channels, rows, columns
    to_ground = _errors(pictures, drawn.flatten(0, 1))
    to_fill = _errors(pictures, fills[:, :, None, None].expand(-1, -1, *pictures.shape[2:]))
    cost = torch.minimum(to_ground[:, :, None], to_fill[:, None]).mean((3, 4))  # N, grounds, fills
    least, place = cost.flatten(1).min(1)
    ground, colour = place // COUNTS[COLOUR], place % COUNTS[COLOUR]
    found = torch.stack([colour, ground // COUNTS[PATTERN], ground % COUNTS[PATTERN]], 1)
    return torch.where((least < LARGEST)[:, None], found, -1)


def _errors(pictures: Tensor, candidates: Tensor) -> Tensor:
    """Squared error of each pixel, [N, candidates, rows, columns]."""
    return torch.stack([(pictures - candidate).square().mean(1) for candidate in candidates], 1)
