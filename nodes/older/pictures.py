"""Pictures as the older nodes prepared them: squares, Pillow's filters on 8 bits, noise.

Shapes: B pictures, H and W pixels, C channels; a picture is [B, H, W, C] of 0..1.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ...ipadapter_core.method.picture import check_finite
from ...ipadapter_core.method.sharpen import sharpened
from .inputs import FILTERS

SIDE = 224  # pixels of what Prep Image and Noise give
PRIME = 1000000007
ALPHA, SIGMA, SHUFFLED = 75.0, 3.5, 0.75  # of the noise 'shuffle'


def resized(image: Tensor, height: int, width: int, filter: str) -> Tensor:
    """Resized by Pillow's filter of this name, on 8 bits that are cut off, not rounded.

    Raises ValueError for NaN and infinite values.
    """
    check_finite(image, "the picture")
    pictures = []
    for picture in image:
        values = (255 * picture.detach().cpu().float()).clamp(0, 255).to(torch.uint8).numpy()
        grey = values.shape[-1] == 1
        one = Image.fromarray(values[..., 0] if grey else values).resize((width, height), FILTERS[filter])
        pictures.append(np.asarray(one)[..., None] if grey else np.asarray(one))
    return torch.from_numpy(np.stack(pictures)).float() / 255


def centre(values: Tensor, height: int, width: int) -> Tensor:
    """The centre [..., height, width] of [..., H, W], halves to even."""
    top, left = round((values.shape[-2] - height) / 2), round((values.shape[-1] - width) / 2)
    return values[..., top : top + height, left : left + width]


def square_of(values: Tensor, size: int) -> Tensor:
    """The centre square of [B, C, H, W], resized bicubically with antialias to `size`; not clamped."""
    side = min(values.shape[-2:])
    return F.interpolate(centre(values, side, side), (size, size), mode="bicubic", antialias=True)


def prep_image(
    image: Tensor, interpolation: str = "LANCZOS", crop_position: str = "center", sharpening: float = 0.0
) -> tuple[Tensor]:
    """The square of a picture at a place, or the whole on black, at 224 pixels: one picture [B, 224, 224, C]."""
    height, width = image.shape[1:3]
    if crop_position == "pad":
        above, beside = max(0, width - height) // 2, max(0, height - width) // 2
        image = F.pad(image, (0, 0, beside, beside, above, above))
    else:
        side = min(height, width)
        top = {"top": 0, "bottom": height - side}.get(crop_position, (height - side) // 2)
        left = {"left": 0, "right": width - side}.get(crop_position, (width - side) // 2)
        image = image[:, top : top + side, left : left + side]
    return (sharpened(resized(image, SIDE, SIDE, interpolation), sharpening),)


def make_noise(
    type: str = "fade", strength: float = 1.0, blur: int = 0, image_optional: Tensor | None = None
) -> tuple[Tensor]:
    """Noise of a picture, the same for the same picture: one batch [B, 224, 224, C]."""
    if image_optional is None:
        picture = torch.zeros(1, SIDE, SIDE, 3)
    else:
        picture = square_of(image_optional.cpu().movedim(-1, 1), SIDE).movedim(1, -1)
    # torch's global generator, because the transforms below draw from it; what it was is put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(picture.sum().item()) % PRIME)
        noise = _noisy(picture, type, strength).clamp(0, 1)
        if blur > 0:
            size = blur + (blur % 2 == 0)
            noise = v2.functional.gaussian_blur(noise.movedim(-1, 1), [size, size]).movedim(1, -1)
    return (noise,)


def _noisy(picture: Tensor, kind: str, strength: float) -> Tensor:
    """The draws of each kind in their order."""
    if kind == "fade":
        return picture * (1 - strength) + torch.rand_like(picture) * strength
    if kind == "dissolve":
        chosen = torch.rand_like(picture) < strength
        return torch.where(chosen, torch.rand_like(picture), picture)
    if kind == "gaussian":
        return picture + torch.randn_like(picture) * strength
    if kind != "shuffle":
        raise ValueError(f"unknown noise {kind!r}: choose fade, dissolve, gaussian or shuffle")
    turned = v2.Compose([
        v2.ElasticTransform(alpha=ALPHA, sigma=SIGMA * (1 - strength)),
        v2.RandomVerticalFlip(p=1.0),
        v2.RandomHorizontalFlip(p=1.0),
    ])(picture.movedim(-1, 1)).movedim(1, -1)  # fmt: skip
    noise = torch.randn_like(turned) * (strength * SHUFFLED)
    return turned * (1 - noise) + noise
