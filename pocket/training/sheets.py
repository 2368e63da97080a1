"""Contact sheets: rows of pictures, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def save_rows(path: Path, rows: Sequence[Tensor], zoom: int = 2) -> None:
    """Rows of as many pictures each, [N, 3, 64, 64] of 0..1."""
    grid = make_grid(torch.cat([row.clamp(0, 1) for row in rows]), nrow=len(rows[0]), padding=2, pad_value=1.0)
    image = Image.fromarray((grid * 255).round().byte().permute(1, 2, 0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST).save(path)


def interleaved(first: Tensor, second: Tensor, width: int) -> list[Tensor]:
    """Rows of `width` pictures, of both in turns."""
    return [row for pair in zip(first.split(width), second.split(width), strict=True) for row in pair]
