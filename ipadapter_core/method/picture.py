"""The square that an image encoder sees, cut from a picture as in the training.

Nodes and trainer call the same functions, so a reference gives the same features in both. Pillow resizes, because
torch's own bicubic differs from it by up to 2 of 255, and adapters were trained on Pillow's.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .sharpen import sharpened

CROPS = ("centre", "top", "bottom", "left", "right", "pad", "stretch", "letterbox")
MAX_RATIO = 8  # longer pictures are cut to this before they are resized, so that no thin one grows without bound
WHITE = (255, 255, 255)
GROUNDS = {"pad": WHITE, "letterbox": (0, 0, 0)}  # of the crops that keep the whole picture


def check_finite(values: Tensor, what: str) -> None:
    """Hold pixels to numbers, which 8 bits are cut from. Raises ValueError that begins with `what` they are."""
    wrong = int((~torch.isfinite(values)).sum())
    if wrong:
        raise ValueError(
            f"{what} has {wrong:,} NaN or infinite values of {values.numel():,}, which would be read as black: "
            "make it again (a VAE in half precision gives such pictures; start ComfyUI with --fp32-vae or --bf16-vae)"
        )


def to_pil(picture: Tensor) -> Image.Image:
    """A picture [H, W, 3 or 4 or 1] of 0..1 as 8 bit RGB, transparent parts on white.

    Raises ValueError for NaN and infinite values.
    """
    check_finite(picture, "the reference picture")
    values = (picture.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    if values.shape[-1] == 1:
        values = values.repeat(3, -1)
    return on_white(Image.fromarray(np.ascontiguousarray(values)))


def on_white(image: Image.Image) -> Image.Image:
    """RGB of any Pillow image, 16 bit grey included; where it is transparent, white shows."""
    if image.mode.startswith("I"):  # Pillow would cut 16 bits at 255, that is, to white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, WHITE)
    return Image.alpha_composite(ground, rgba).convert("RGB")


def square(image: Image.Image, size: int, crop: str = "centre") -> Image.Image:
    """Cut an RGB image to `size` x `size`: shortest side to `size` (bicubic), then the named part of the longer side.

    "pad" keeps the whole picture on a white square, "letterbox" on a black one, "stretch" ignores its proportions.
    "centre" equals open_clip's own preprocessing, value for value.
    """
    if crop not in CROPS:
        raise ValueError(f"unknown crop {crop!r}: choose one of {', '.join(CROPS)}")
    width, height = image.size
    if crop == "stretch":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if crop in GROUNDS:
        scale = size / max(width, height)
        inner = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
        ground = Image.new("RGB", (size, size), GROUNDS[crop])
        ground.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
        return ground
    image = _bounded(image, crop)
    width, height = image.size
    short = min(width, height)
    image = image.resize((int(size * width / short), int(size * height / short)), Image.Resampling.BICUBIC)
    left, top = _corner(image.width, image.height, size, crop)
    return image.crop((left, top, left + size, top + size))


def _corner(width: int, height: int, size: int, crop: str) -> tuple[int, int]:
    """Left and top of the square; a side that the crop does not name is centred."""
    left = {"left": 0, "right": width - size}.get(crop, round((width - size) / 2))
    top = {"top": 0, "bottom": height - size}.get(crop, round((height - size) / 2))
    return left, top


def _bounded(image: Image.Image, crop: str) -> Image.Image:
    short = min(image.size)
    width, height = (min(side, MAX_RATIO * short) for side in image.size)
    if (width, height) == image.size:
        return image
    left = {"left": 0, "right": image.width - width}.get(crop, (image.width - width) // 2)
    top = {"top": 0, "bottom": image.height - height}.get(crop, (image.height - height) // 2)
    return image.crop((left, top, left + width, top + height))


def encoder_views(pictures: Tensor, size: int, crop: str = "centre", sharpening: float = 0.0) -> Tensor:
    """Pictures [B, H, W, 1, 3 or 4] of 0..1 to what the encoder sees: [B, size, size, 3], 8 bit values as floats.

    sharpening: of the square, 0 (nothing) to 1.
    Raises ValueError for an empty batch, a picture without pixels, and NaN or infinite values.
    """
    if pictures.ndim != 4 or 0 in pictures.shape:
        raise ValueError(
            f"the reference has no pixels (shape {tuple(pictures.shape)}): expected [batch, height, width, 3]"
        )
    views = [_as_tensor(square(to_pil(picture), size, crop)) for picture in pictures]
    if sharpening:
        views = [(sharpened(view[None], sharpening)[0] * 255).round() / 255 for view in views]
    return torch.stack(views)


def _as_tensor(image: Image.Image) -> Tensor:
    """[H, W, 3] of 0..1."""
    return torch.from_numpy(np.array(image)).float() / 255


def square_around(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    """The square around a box (left, top, right, bottom in pixels) with its longer side, resized to `size` x `size`.

    Outside of the picture it is black. What face adapters see that were trained on a face's box.
    """
    left, top, right, bottom = box
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    cut = image.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
    return cut.resize((size, size), Image.Resampling.BICUBIC)
