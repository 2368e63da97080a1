"""A picture's colours and turn, as its file means them: ICC profiles to sRGB, floats to 8 bits, EXIF's orientation."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

ORIENTATION = 0x0112  # EXIF's tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises for metadata of another type or length than usual: none of it concerns the pixels
ODD_METADATA = (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError)
PROFILED = {"RGB": "RGB ", "RGBA": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # modes and the colour space of their profiles
SAME = 2  # of 255: a profile that moves no colour by more is sRGB, written by another program


def turned(image: Image.Image) -> Image.Image:
    """The picture as EXIF's orientation says; every other tag, however odd, is passed over."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except ODD_METADATA:
        return image
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def as_srgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB, by the profile that is in its file; unchanged without one, or where it is damaged."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile or not features.check("littlecms2"):
        return image
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in PROFILED or (image.mode in ("RGB", "L") and "transparency" in image.info):
        return image  # a colour that stands for transparency would be moved with the others
    transform = _to_srgb(profile, image.mode)
    if transform is None:
        return image
    try:
        return ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def as_8_bit(image: Image.Image) -> Image.Image:
    """A picture of floats (mode F) in 8 bits: up to 1 is white, or 255, or 65535 where there are values beyond."""
    if image.mode != "F":
        return image
    values = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
    white = next((top for top in (1.0, 255.0, 65535.0) if values.max(initial=0) <= top), float(values.max(initial=0)))
    return Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> Any:
    """The transform of a profile's colours to sRGB; None where there is nothing to do, or the profile is damaged."""
    try:
        found = ImageCms.ImageCmsProfile(BytesIO(profile))
        if found.profile.xcolor_space != PROFILED[mode]:
            return None
        to = "RGBA" if mode == "RGBA" else "RGB"
        srgb = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        if mode in ("RGB", "RGBA") and _is_srgb(ImageCms.buildTransform(found, srgb, "RGB", "RGB", intent)):
            return None
        return ImageCms.buildTransform(found, srgb, mode, to, intent)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _is_srgb(transform: Any) -> bool:
    steps = np.linspace(0, 255, 8).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(8, 64, 3)
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), transform)).astype(int)
    return int(np.abs(moved - cube).max()) <= SAME
