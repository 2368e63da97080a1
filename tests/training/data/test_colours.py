"""What a picture's file says beside its pixels: the turn, the colours, odd metadata, kinds that need an extra."""

from __future__ import annotations

import importlib.util
import os
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from trainer.data.pictures import Unusable, decode

RED_BLUE = Image.fromarray(np.tile(np.array([[255, 0, 0], [0, 0, 255]], np.uint8).repeat(20, 0), (24, 1, 1)))


def jpeg_with(tag: int, kind: int, value: bytes) -> bytes:
    """A JPEG turned by 90 degrees (EXIF 6), with one more tag of this type and value."""
    buffer = BytesIO()
    RED_BLUE.save(buffer, "JPEG", quality=95)
    content = buffer.getvalue()
    tags = sorted([(0x112, 3, 1, struct.pack("<HH", 6, 0)), (tag, kind, 1, value)])
    entries = b"".join(struct.pack("<HHI", *one[:3]) + one[3] for one in tags)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<III", 0, 72, 1)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (0x132, 5, struct.pack("<I", 38)),  # DateTime, a ratio
        (0x131, 11, struct.pack("<f", 2.0)),  # Software, a float
        (0x100, 7, b"abcd"),  # ImageWidth, bytes
        (0x11A, 1, b"\x48\0\0\0"),  # XResolution, a byte
        (0x11A, 5, struct.pack("<I", 60_000)),  # XResolution, beyond the end
        (0x8769, 2, b"ab\0\0"),  # the EXIF part's place, a text
    ],
)
def test_odd_metadata_changes_nothing(tag: int, kind: int, value: bytes) -> None:
    found = decode(jpeg_with(tag, kind, value))
    assert isinstance(found, Image.Image), found
    pixels = np.asarray(found).astype(int)
    assert found.size == (RED_BLUE.height, RED_BLUE.width)
    assert abs(pixels[5, 12] - [255, 0, 0]).max() < 20 and abs(pixels[-5, 12] - [0, 0, 255]).max() < 20


def wide_profile() -> bytes:
    """A matrix profile like sRGB's whose red and green are changed for each other: easy to tell from none."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    places = {bytes(profile[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(count)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profiles_colours_become_srgb(mode: str) -> None:
    image = RED_BLUE.quantize(4) if mode == "P" else RED_BLUE.convert(mode)
    found = decode(encoded(image, icc_profile=wide_profile()))
    assert isinstance(found, Image.Image)
    off = np.abs(np.asarray(found).astype(int)[12] - np.array([[0, 255, 0], [0, 0, 255]]).repeat(20, 0)).max()
    print(f"\n{mode}: red that is meant as green, off by {off} of 255")
    assert off <= 2


def test_srgb_and_damaged_profiles_change_no_bit() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (own, b"no profile", own[:200], lab):
        found = decode(encoded(noise, icc_profile=profile))
        assert isinstance(found, Image.Image) and found.tobytes() == noise.tobytes()


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_pictures_keep_their_greys(white: float) -> None:
    greys = np.linspace(0, 255, 64 * 80).reshape(64, 80).round()
    found = decode(encoded(Image.fromarray((greys / 255 * white).astype(np.float32)), "TIFF"))
    assert isinstance(found, Image.Image)
    off = np.abs(np.asarray(found).astype(int) - greys[..., None]).max()
    print(f"\nwhite is {white:g}: off by {off:g} of 255")
    assert off == 0


def test_heic_is_read_or_named() -> None:
    found = decode(b"\0\0\0\x18ftypheic" + bytes(40))
    assert isinstance(found, Unusable)
    print(f"\n{found}")
    if importlib.util.find_spec("pillow_heif") is None:
        assert found.kind == "heic" and "pip install pillow-heif" in found.reason


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "self.png").symlink_to("self.png")
    for name in ("folder.png", "pipe.png", "self.png", "a\0b.png"):
        found = decode(tmp_path / name)
        assert isinstance(found, Unusable)
        print(f"\n{found}")
