"""A ruler for maps of where something acts: how well they tell the shape of a drawing from its ground.

Shapes: N maps and masks of the same size, h and w.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..world.drawing import Chance, silhouettes


def shapes(scenes: Tensor, given: Chance, size: tuple[int, int]) -> Tensor:
    """Where the shapes of scenes [N, 5] are, as shares of the places of a grid: [N, h, w] of 0..1."""
    return F.interpolate(silhouettes(scenes, given)[:, :1], size, mode="area")[:, 0]


def inside_over_outside(maps: Tensor, masks: Tensor) -> Tensor:
    """The mean of each map where its mask is over the mean where it is not, [N]; 1 where it tells nothing."""
    inside = (maps * masks).sum((1, 2)) / masks.sum((1, 2))
    outside = (maps * (1 - masks)).sum((1, 2)) / (1 - masks).sum((1, 2))
    return inside / outside


def auc(maps: Tensor, masks: Tensor) -> Tensor:
    """How often a place inside has more than one outside, for each map, [N]: 1 always, 0.5 by chance, 0 never.

    A place is inside where its mask is above a half. Raises ValueError for a mask that is all of one kind.
    """
    found = []
    for one, mask in zip(maps, masks):
        inside, outside = one[mask > 0.5], one[mask <= 0.5]
        if not len(inside) or not len(outside):
            raise ValueError("a mask has no place inside or none outside: there is nothing to tell apart")
        difference = inside[:, None] - outside
        found.append(((difference > 0).float() + 0.5 * (difference == 0).float()).mean())
    return torch.stack(found)
