"""Pictures of every kind that people have, and what the autoencoder and the image encoder see of them."""

from __future__ import annotations

import dataclasses
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms

from ipadapter_core import encoder_pixels
from ipadapter_core.facts.encoders import VIT_H
from tests.support import tiny_models
from tests.support.data_loading import real_pictures
from trainer.base.encoder import load_encoder
from trainer.data.pictures import Unusable, cut_target, decode, normalised
from trainer.data.reader import cut_pictures
from trainer.settings.config import DataConfig

GREYS = np.linspace(0, 255, 64 * 80).reshape(64, 80).round().astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture() -> Image.Image:
    return Image.fromarray(np.stack([GREYS, GREYS[::-1], GREYS[:, ::-1]], -1))


def decoded(data: bytes | Path) -> Image.Image:
    found = decode(data)
    assert isinstance(found, Image.Image), found
    assert found.mode == "RGB"
    return found


def fault(data: bytes | Path, min_side: int = 1) -> Unusable:
    found = decode(data, min_side)
    assert isinstance(found, Unusable)
    print(f"\n{found.kind}: {found.reason}")
    return found


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    back = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[turn]  # fmt: skip
    wanted = picture() if back is None else picture().transpose(back)
    assert decoded(encoded(picture(), exif=exif)).tobytes() == wanted.tobytes()


def test_alpha_shows_white() -> None:
    alpha = Image.fromarray(np.where(GREYS > 128, 255, 0).astype(np.uint8))
    rgba = picture()
    rgba.putalpha(alpha)
    found = np.asarray(decoded(encoded(rgba)))
    assert (found[GREYS <= 128] == 255).all()
    assert (found[GREYS > 128] == np.asarray(picture())[GREYS > 128]).all()


def test_palette_with_and_without_a_transparent_colour() -> None:
    palette = picture().quantize(16)
    assert decoded(encoded(palette)).tobytes() == palette.convert("RGB").tobytes()
    found = np.asarray(decoded(encoded(palette, transparency=3)))
    where = np.asarray(palette) == 3
    assert where.any()
    assert (found[where] == 255).all()
    assert (found[~where] == np.asarray(palette.convert("RGB"))[~where]).all()


def test_cmyk() -> None:
    off = np.abs(
        np.asarray(decoded(encoded(picture().convert("CMYK"), "JPEG", quality=100))).astype(int) - np.asarray(picture())
    ).mean()
    print(f"\nmean difference after CMYK and JPEG {off:.2f} of 255")
    assert off < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_greys(kind: str) -> None:
    deep = Image.fromarray(GREYS.astype(np.uint16) * 257)
    found = np.asarray(decoded(encoded(deep, kind)))
    assert (found == GREYS[..., None]).all()


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_first_frame_of_an_animation(kind: str, options: dict[str, object]) -> None:
    frames = [picture().quantize(64).convert("RGB"), Image.new("RGB", (80, 64), "red")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    off = np.abs(np.asarray(decoded(data)).astype(int) - np.asarray(frames[0])).max()
    assert off == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "YCbCr", "LAB", "I;16", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode in ("YCbCr", "LAB", "F") else "PNG"
    image = (
        Image.fromarray(GREYS.astype(np.uint16) * 257)
        if mode == "I;16"
        else picture().convert("L" if mode == "F" else mode)
    )
    assert decoded(encoded(image.convert("F") if mode == "F" else image, kind)).size == (80, 64)


def test_what_cannot_be_used_says_why(tmp_path: Path) -> None:
    assert fault(tmp_path / "gone.png").kind == "missing"
    assert fault(b"no picture").kind == "corrupt"
    assert fault(b"").kind == "corrupt"
    assert "32 x 500" in fault(encoded(Image.new("RGB", (32, 500))), min_side=64).reason
    assert fault(encoded(Image.new("L", (2000, 100)))).kind == "too long"
    bomb = bytearray(encoded(Image.new("L", (8, 8))))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # the width and height that the header claims
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    assert fault(bytes(bomb)).kind == "too large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damage_is_never_an_exception(kind: str) -> None:
    whole = encoded(picture(), kind)
    random = np.random.default_rng(0)
    counts = {"corrupt": 0, "other": 0, "readable": 0}
    for _ in range(150):
        data = bytearray(whole[: random.integers(0, len(whole) + 1)])
        for place in random.integers(0, max(1, len(data)), 4) if data else []:
            data[place] = random.integers(0, 256)
        found = decode(bytes(data))
        counts[
            "readable" if not isinstance(found, Unusable) else "corrupt" if found.kind == "corrupt" else "other"
        ] += 1
    print(f"\n{kind}: {counts}")
    assert counts["corrupt"] > 0


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (512, 512), (100, 170), (1500, 120)])
def test_target_equals_the_references_transforms(size: tuple[int, int], tmp_path: Path) -> None:
    image = Image.open(real_pictures(tmp_path, 1)[0]).resize(size)
    reference = transforms.Compose(
        [
            transforms.Resize(128, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(128),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )(image)
    target = cut_target(image, 128)
    off = float((normalised(target.pixels()) - reference).abs().max())
    print(f"\n{size}: largest difference from torchvision {off:.1e}")
    assert off < 1e-6
    assert target.original == (size[1], size[0])


def test_random_crop_reaches_every_corner_and_says_where() -> None:
    image = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1))).convert("RGB")
    assert cut_target(image, 100, (0.0, 0.0)).corner == (0, 0)
    assert cut_target(image, 100, (0.9999, 0.9999)).corner == (0, 100)
    target = cut_target(image, 100, (0.5, 0.5))
    assert target.corner == (0, 50)
    assert np.asarray(target.image)[0, 0, 0] == 50
    assert target.geometry == ((100, 200), (0, 50), (100, 100))


def test_the_encoders_square_equals_the_encoders_own(tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_models.write_encoder(tmp_path / "encoder")))
    theirs = open_clip.image_transform(
        encoder.facts.image_size, is_train=False, mean=encoder.facts.mean, std=encoder.facts.std
    )
    for path in real_pictures(tmp_path / "pictures", 4):
        image = Image.open(path)
        assert torch.allclose(encoder_pixels(image, encoder.facts), theirs(image), atol=1e-6)
        assert torch.equal(encoder.pixels([image])[0], encoder_pixels(image, encoder.facts))


@pytest.mark.parametrize("orientation", [1, 6])
def test_drafts_of_large_jpegs_are_nearly_the_same(orientation: int, tmp_path: Path) -> None:
    cells = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(cells).resize((1100, 1000), Image.Resampling.BICUBIC)
    exif = picture.getexif()
    exif[274] = orientation
    picture.save(tmp_path / "large.jpg", quality=92, exif=exif)
    data = DataConfig(resolution=128)
    full, drafted = (
        cut_pictures(tmp_path / "large.jpg", None, dataclasses.replace(data, draft=is_draft), VIT_H)
        for is_draft in (False, True)
    )
    assert not isinstance(full, Unusable) and not isinstance(drafted, Unusable)
    assert full[0].geometry == drafted[0].geometry
    assert full[1] is not None and drafted[1] is not None
    for name, a, b in (("target", full[0].pixels(), drafted[0].pixels()), ("encoder", full[1], drafted[1])):
        off = (a.int() - b.int()).abs()
        print(f"\n{name}: mean {off.float().mean():.2f}, largest {int(off.max())} of 255")
        assert 0 < off.float().mean() < 1
        assert off.max() <= 16
    small = cut_pictures(tmp_path / "large.jpg", None, dataclasses.replace(data, draft=True, resolution=512), None)
    plain = cut_pictures(tmp_path / "large.jpg", None, dataclasses.replace(data, resolution=512), None)
    assert not isinstance(small, Unusable) and not isinstance(plain, Unusable)
    assert torch.equal(small[0].pixels(), plain[0].pixels())  # twice 512 is more than there is
