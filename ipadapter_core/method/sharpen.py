"""Contrast adaptive sharpening of the square that an encoder sees (AMD FidelityFX CAS).

Shapes: B pictures of H x W, channels last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEAKEST, STRONGEST = 1 / 8, 1 / 5  # CAS' weight of a neighbour, by amount


def sharpened(pictures: Tensor, amount: float) -> Tensor:
    """Pictures [B, H, W, C] of 0..1 sharpened: less where the contrast is high already, nothing at their edges.

    amount: 0 gives the pictures themselves; above it CAS' own scale, which begins with a weak sharpening, up to 1.
    Raises ValueError for an amount outside of 0..1.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"sharpening is {amount}, expected 0 (nothing) to 1 (strongest)")
    if amount == 0:
        return pictures
    height, width = pictures.shape[1:3]
    padded = F.pad(pictures, (0, 0, 1, 1, 1, 1))
    rows = [[padded[:, y : y + height, x : x + width] for x in range(3)] for y in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = rows
    cross, corners = torch.stack([b, d, e, f, h]), torch.stack([a, c, g, i])
    low = cross.amin(0).clamp(min=0) + corners.amin(0).clamp(min=0)
    high = cross.amax(0).clamp(max=1) + corners.amax(0).clamp(max=1)
    contrast = (torch.minimum(low, 2 - high) / high).nan_to_num(0).sqrt()  # 0 / 0 where all is black
    neighbour = -contrast * (amount * (STRONGEST - WEAKEST) + WEAKEST)
    return (((b + d + f + h) * neighbour + e) / (1 + 4 * neighbour)).clamp(0, 1)
