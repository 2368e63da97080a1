"""Pictures as the older pack cuts, sharpens and disturbs them, written from its behaviour: IMAGE [P, H, W, 3]."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import gaussian_blur


def pillow(pictures: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """Resized to (height, width) by Pillow, on 8 bits, which are truncated."""
    filter = getattr(Image.Resampling, name)
    made = []
    for picture in pictures:
        bits = Image.fromarray((picture.numpy() * np.float32(255)).astype(np.uint8))
        made.append(np.asarray(bits.resize((size[1], size[0]), filter)))
    return torch.from_numpy(np.stack(made)).float() / 255


def bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., C, H, W] to a size, with antialias, not clamped."""
    return F.interpolate(x, size, mode="bicubic", antialias=True)


def centre(x: Tensor, height: int, width: int, dims: tuple[int, int]) -> Tensor:
    """The middle of two dims; starts are rounded half to even."""
    for dim, side in zip(dims, (height, width)):
        x = x.narrow(dim, round((x.shape[dim] - side) / 2), side)
    return x


def sharpened(pictures: Tensor, amount: float) -> Tensor:
    """Contrast adaptive sharpening (AMD FidelityFX CAS)."""
    if amount == 0:
        return pictures
    height, width = pictures.shape[1:3]
    x = F.pad(pictures, (0, 0, 1, 1, 1, 1))
    a, b, c, d, e, f, g, h, i = (
        x[:, row : row + height, column : column + width] for row in range(3) for column in range(3)
    )
    cross, corners = torch.stack([b, d, e, f, h]), torch.stack([a, c, g, i])
    mn = cross.amin(0).clamp(min=0) + corners.amin(0).clamp(min=0)
    mx = cross.amax(0).clamp(max=1) + corners.amax(0).clamp(max=1)
    amp = (torch.minimum(mn, 2 - mx) / mx).sqrt()
    w = -amp * (amount * (1 / 5 - 1 / 8) + 1 / 8)
    out = ((b + d + f + h) * w + e) / (1 + 4 * w)
    return torch.where(out.isnan(), 0, out).clamp(0, 1)


def prepared(pictures: Tensor, interpolation: str, position: str, sharpening: float) -> Tensor:
    height, width = pictures.shape[1:3]
    side = min(height, width)
    if position == "pad":
        down, right = max(0, (width - height) // 2), max(0, (height - width) // 2)
        pictures = F.pad(pictures, (0, 0, right, right, down, down))
    else:
        top, left = (height - side) // 2, (width - side) // 2
        top = {"top": 0, "bottom": height - side}.get(position, top)
        left = {"left": 0, "right": width - side}.get(position, left)
        pictures = pictures[:, top : top + side, left : left + side]
    return sharpened(pillow(pictures, (224, 224), interpolation), sharpening)


def noise(kind: str, strength: float, blur: int, pictures: Tensor | None = None) -> Tensor:
    """Draws from torch's global generator, which it seeds."""
    if pictures is None:
        x = torch.zeros(1, 224, 224, 3)
    else:
        side = min(pictures.shape[1:3])
        x = bicubic(centre(pictures, side, side, (1, 2)).movedim(-1, 1), (224, 224)).movedim(1, -1)
    torch.manual_seed(int(x.sum()) % 1000000007)
    if kind == "fade":
        x = x * (1 - strength) + torch.rand_like(x) * strength
    elif kind == "dissolve":
        choice, other = torch.rand_like(x), torch.rand_like(x)
        x = torch.where(choice < strength, other, x)
    elif kind == "gaussian":
        x = x + torch.randn_like(x) * strength
    else:
        moved = v2.Compose([
            v2.ElasticTransform(alpha=75.0, sigma=3.5 * (1 - strength)), v2.RandomVerticalFlip(p=1.0),
            v2.RandomHorizontalFlip(p=1.0),
        ])  # fmt: skip
        x = moved(x.movedim(-1, 1)).movedim(1, -1)
        n = 0.75 * strength * torch.randn_like(x)
        x = x * (1 - n) + n
    x = x.clamp(0, 1)
    if blur > 0:
        size = blur + (blur % 2 == 0)
        x = gaussian_blur(x.movedim(-1, 1), [size, size]).movedim(1, -1)
    return x


def starts(side: int) -> list[int]:
    """Where tiles of 256 begin along a side."""
    n = math.ceil(side / 256)
    overlap = (256 * n - side) / (n - 1) if n > 1 else 0
    return [int(i * (256 - overlap)) for i in range(n)]


def tiles(pictures: Tensor, mask: Tensor | None, sharpening: float) -> tuple[list[Tensor], list[Tensor]]:
    """For each tile the pictures [P, 256, 256, 3] and the mask [1, height, width].

    mask: [1, H, W], as large as the pictures.
    """
    height, width = pictures.shape[1:3]
    mask = torch.ones(1, height, width) if mask is None else mask
    if 0.75 < height / width < 1.33:
        crop, size = (min(height, width),) * 2, (512, 512)
    else:
        short = min(height, width)
        crop = (min(height, 4 * short), min(width, 4 * short))
        size = (int(crop[0] * 256 / short), int(crop[1] * 256 / short))
    pictures = sharpened(pillow(centre(pictures, *crop, (1, 2)), size, "LANCZOS"), sharpening)
    mask = bicubic(centre(mask, *crop, (1, 2))[:, None], size)[:, 0]
    parts, masks = [], []
    for top in starts(size[0]):
        for left in starts(size[1]):
            parts.append(pictures[:, top : top + 256, left : left + 256])
            inside = torch.zeros_like(mask)
            inside[:, top : top + 256, left : left + 256] = mask[:, top : top + 256, left : left + 256]
            masks.append(inside)
    return parts, masks
