"""From a picture's bytes to what the autoencoder and the image encoder see.

The target, as in the paper's training: shortest side to the resolution (Pillow's bilinear, as torchvision's Resize),
then a crop of the resolution, in [-1, 1]. The encoder's square is `ipadapter_core.method.picture.square`, as the nodes
cut it.
A picture that cannot be used is a value (`Unusable`), not an error: a training goes on without it and reports it.
"""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ipadapter_core.method.picture import on_white

from .colours import as_8_bit, as_srgb, turned
from .geometry import Geometry
from .heif import NeedsExtraError, is_heif, teach

Picture = Path | bytes | Image.Image  # a file, its content, or a picture already decoded
MAX_RATIO = 16  # of the longer side to the shorter
MAX_PIXELS = 178_956_970  # 512 MiB of RGB: what Pillow itself calls a decompression bomb
# What Pillow's readers raise for damaged files, each in its way
DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Unusable:
    """Why a picture cannot be trained on. kind: one word or two, for counts. reason: for people."""

    kind: str
    reason: str


def decode(picture: Picture, min_side: int = 1) -> Image.Image | Unusable:
    """RGB in sRGB of any picture: turned as EXIF says, transparent parts on white, the first frame of an animation.

    min_side: the smallest shortest side, in pixels, that is used.
    """
    found = decode_sized(picture, min_side)
    return found if isinstance(found, Unusable) else found[0]


def decode_sized(
    picture: Picture, min_side: int = 1, enough: int = 0
) -> tuple[Image.Image, tuple[int, int]] | Unusable:
    """What `decode` gives, and the height and width of the picture as in its file, turned.

    enough: pixels of the shortest side that suffice: a JPEG is decoded at a half, a quarter or an eighth of its size
    where that leaves as many. 0: every picture is decoded in full.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large and odd files: they are judged here
            with _opened(picture) as opened:
                if fault := _unfit(opened.size, min_side):
                    return fault
                opened.seek(0)
                full = opened.size
                if enough:
                    opened.draft(None, (enough, enough))
                opened.load()
                upright = turned(opened)
                width, height = full if upright.size == opened.size else full[::-1]
                return on_white(as_8_bit(as_srgb(upright))), (height, width)
    except FileNotFoundError:
        return Unusable("missing", f"there is no file {picture!s}")
    except PermissionError:
        return Unusable("unreadable", f"the file {picture!s} may not be read")
    except Image.DecompressionBombError:
        return Unusable("too large", f"more than {MAX_PIXELS:,} pixels")
    except NeedsExtraError as error:
        return Unusable("heic", str(error))
    except DAMAGED as error:
        return Unusable("corrupt", f"damaged, or no picture ({type(error).__name__}: {_short(error)})")


def _opened(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.copy()
    if isinstance(picture, Path) and not stat.S_ISREG(picture.stat().st_mode):
        raise OSError("it is no file but a folder or a device")  # a pipe would never end
    try:
        return _read(picture)
    except UnidentifiedImageError:
        if not is_heif(_start(picture)):
            raise
        teach()
        return _read(picture)


def _read(picture: Path | bytes) -> Image.Image:
    return Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture)


def _start(picture: Path | bytes) -> bytes:
    if isinstance(picture, bytes):
        return picture[:12]
    with picture.open("rb") as file:
        return file.read(12)


def _unfit(size: tuple[int, int], min_side: int) -> Unusable | None:
    width, height = size
    if width * height > MAX_PIXELS:
        return Unusable("too large", f"{width} x {height}, more than {MAX_PIXELS:,} pixels")
    if min(size) < min_side:
        return Unusable("too small", f"{width} x {height}, the shortest side is below data.min_side = {min_side}")
    if max(size) > MAX_RATIO * min(size):
        return Unusable("too long", f"{width} x {height}, proportions beyond {MAX_RATIO}:1")
    return None


def _short(error: Exception) -> str:
    text = str(error).split("\n")[0]
    return text if len(text) < 100 and "0x" not in text else text.partition("<")[0].strip()


@dataclass(frozen=True)
class Target:
    """A picture as the autoencoder sees it, and where it was cut.

    original: height and width in pixels, as read. corner: top and left of the crop in the resized picture.
    """

    image: Image.Image
    original: tuple[int, int]
    corner: tuple[int, int]

    def pixels(self) -> Tensor:
        """[3, R, R], in bytes."""
        return torch.from_numpy(np.array(self.image)).permute(2, 0, 1)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.original, self.corner, (self.image.height, self.image.width))


def normalised(pixels: Tensor) -> Tensor:
    """Bytes [..., 3, H, W] as the autoencoder reads them: -1..1, fp32, on their device."""
    return pixels.float() / 127.5 - 1


def cut_target(
    image: Image.Image,
    resolution: int,
    where: tuple[float, float] | None = None,
    original: tuple[int, int] | None = None,
) -> Target:
    """Shortest side to `resolution`, then its crop: the centre, or at `where` (x and y of the free range, 0..1).

    original: height and width as in the file, where the image is smaller.
    """
    width, height = image.size
    short = min(width, height)
    size = (int(resolution * width / short), int(resolution * height / short))
    resized = image.resize(size, Image.Resampling.BILINEAR)
    free_x, free_y = size[0] - resolution, size[1] - resolution
    if where is None:
        left, top = round(free_x / 2), round(free_y / 2)
    else:
        left, top = int(where[0] * (free_x + 1)), int(where[1] * (free_y + 1))
    cut = resized.crop((left, top, left + resolution, top + resolution))
    return Target(cut, original or (height, width), (top, left))
