"""The square that the encoder sees, against open_clip's and transformers' own preprocessing, value for value."""

import subprocess
import sys
import time

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from ipadapter_core.method.picture import CROPS, encoder_views, on_white, square, to_pil

# Width x height: odd, even, tiny, larger and smaller than the square, up to 1:8.
SIZES = [
    *((224, 224), (225, 224), (224, 225), (512, 333), (333, 512), (301, 420)),
    *((97, 61), (1, 1), (3, 2), (640, 80), (80, 639), (1000, 667)),
]


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth noise, so that resizing has something to get wrong."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze(-1) if channels == 1 else values, mode)


def tensor(image: Image.Image) -> torch.Tensor:
    """A picture as ComfyUI holds it: [1, H, W, C] of 0..1."""
    values = np.asarray(image)
    return torch.from_numpy(values.reshape(*values.shape[:2], -1).copy())[None].float() / 255


def largest(ours: Image.Image, reference: Image.Image) -> int:
    return int(np.abs(np.asarray(ours).astype(int) - np.asarray(reference).astype(int)).max())


def open_clips(image: Image.Image, size: int) -> Image.Image:
    """The part of open_clip's preprocessing that works on pictures: resize and centre crop."""
    resize, crop, *_ = open_clip.image_transform(size, is_train=False).transforms
    return crop(resize(image))


def transformers(image: Image.Image, size: int) -> Image.Image:
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, do_rescale=False, do_normalize=False
    )
    return Image.fromarray(processor(image, return_tensors="np").pixel_values[0].transpose(1, 2, 0).astype(np.uint8))


@pytest.mark.parametrize("size", [224, 336])
def test_centre_equals_open_clip(size):
    differences = {shape: largest(square(picture(*shape), size), open_clips(picture(*shape), size)) for shape in SIZES}
    print(f"{size} px, open_clip: largest difference of 255, by size: {differences}")
    assert max(differences.values()) == 0


@pytest.mark.parametrize("size", [224, 336])
def test_centre_equals_transformers_where_it_agrees_with_open_clip(size):
    """They cut an odd rest on different sides."""
    compared = 0
    for shape in SIZES:
        image = picture(*shape)
        if largest(open_clips(image, size), transformers(image, size)) == 0:
            assert largest(square(image, size), transformers(image, size)) == 0
            compared += 1
    print(f"{size} px: transformers agrees with open_clip, and we with both, for {compared} of {len(SIZES)} sizes")
    assert compared >= len(SIZES) // 2


def test_batch_of_tensors():
    """8 bit values survive the way through ComfyUI's floats."""
    images = [picture(301, 420, seed=seed) for seed in (0, 1)]
    seen = encoder_views(torch.cat([tensor(image) for image in images]), 224)
    assert seen.shape == (2, 224, 224, 3) and seen.dtype == torch.float32
    for ours, image in zip(seen, images):
        assert largest(to_pil(ours), open_clips(image, 224)) == 0


@pytest.mark.parametrize("turned", [False, True], ids=["tall", "wide"])
def test_sides(turned):
    """A gradient along the longer side tells which part was cut; the shorter side is not cut at all."""
    ramp = np.linspace(0, 255, 600).astype(np.uint8)
    values = np.broadcast_to(ramp[:, None, None], (600, 200, 3))
    image = Image.fromarray(np.ascontiguousarray(values.swapaxes(0, 1) if turned else values))
    mean = {crop: np.asarray(square(image, 100, crop)).mean() for crop in CROPS}
    start, end = ("left", "right") if turned else ("top", "bottom")
    print(mean)
    assert mean[start] == pytest.approx(255 / 6, abs=2)
    assert mean[end] == pytest.approx(255 * 5 / 6, abs=2)
    for crop in set(CROPS) - {"pad", "letterbox", start, end}:
        assert mean[crop] == pytest.approx(127.5, abs=1)


@pytest.mark.parametrize(("crop", "ground"), [("pad", 255), ("letterbox", 0)])
def test_everything_is_shown_on_a_ground(crop, ground):
    image = Image.new("RGB", (400, 100), (10, 20, 30))
    seen = np.asarray(square(image, 224, crop))
    inside = (seen == (10, 20, 30)).all(-1)
    assert inside.sum() == 224 * 56
    assert (seen[~inside] == ground).all()
    assert inside[84:140].all()


def test_stretch():
    image = picture(301, 97)
    assert largest(square(image, 224, "stretch"), image.resize((224, 224), Image.Resampling.BICUBIC)) == 0


def test_unknown_crop():
    with pytest.raises(ValueError, match="unknown crop 'middle': choose one of centre, top"):
        square(picture(4, 4), 224, "middle")


@pytest.mark.clock
@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (20000, 3)])
def test_extreme_shapes(shape, crop):
    start = time.perf_counter()
    seen = encoder_views(tensor(picture(*shape)), 224, crop)
    seconds = time.perf_counter() - start
    assert seen.shape == (1, 224, 224, 3)
    assert seconds < 1


@pytest.mark.clock
def test_thin_pictures_need_no_memory():
    """Resized whole, 1 x 20000 would be 224 x 4480000 pixels, 3 GB."""
    code = """
import resource, torch
from ipadapter_core.method.picture import CROPS, encoder_views
thin = [torch.rand(1, 20000, 1, 3), torch.rand(1, 1, 20000, 3)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for picture in thin:
    for crop in CROPS:
        encoder_views(picture, 224, crop)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    used = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    print(f"pictures of 1 x 20000 and 20000 x 1, every crop: {used:.1f} MB more at the peak")
    assert used < 50


def test_bounded_pictures_keep_the_named_part():
    """1:100 is cut to 1:8 first; the named end must be in it."""
    values = np.zeros((1000, 10, 3), dtype=np.uint8)
    values[:10], values[-10:] = 100, 200
    image = Image.fromarray(values)
    assert np.asarray(square(image, 50, "top"))[:40].mean() == pytest.approx(100, abs=5)
    assert np.asarray(square(image, 50, "bottom"))[10:].mean() == pytest.approx(200, abs=5)
    assert np.asarray(square(image, 50, "centre")).max() == 0


def test_transparent_is_white():
    rgba = picture(40, 30, "RGBA")
    rgba.putalpha(Image.new("L", rgba.size, 0))
    assert (encoder_views(tensor(rgba), 24) == 1).all()


def test_alpha_blends_with_white():
    image = Image.new("RGBA", (30, 30), (0, 100, 255, 51))
    assert encoder_views(tensor(image), 24)[0, 0, 0].mul(255).tolist() == pytest.approx([204, 224, 255], abs=1)


def test_opaque_alpha_changes_nothing():
    rgb = picture(301, 420)
    rgba = rgb.copy()
    rgba.putalpha(255)
    assert torch.equal(encoder_views(tensor(rgba), 224), encoder_views(tensor(rgb), 224))


def test_grey():
    grey = picture(301, 420, "L")
    assert torch.equal(encoder_views(tensor(grey), 224), encoder_views(tensor(grey.convert("RGB")), 224))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_any_mode_becomes_rgb(mode):
    grey = Image.new("L", (8, 8), 128)
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16 if mode == "I;16" else np.int32))
    elif mode == "PA":
        image = grey.convert("P").convert("PA")
    elif mode == "RGBa":
        image = grey.convert("RGBA").convert("RGBa")
    else:
        image = grey.convert("RGB" if mode == "CMYK" else "L").convert(mode)
    assert image.mode == mode
    rgb = on_white(image)
    assert rgb.mode == "RGB" and rgb.size == (8, 8)
    if mode != "1":
        assert np.abs(np.asarray(rgb).astype(int) - 128).max() <= 1


def test_values_out_of_range_are_cut():
    assert np.asarray(to_pil(torch.tensor([[[-1.0, 0.5, 2.0]]]))).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 0, 8, 3), (1, 8, 0, 3), (8, 8, 3)])
def test_no_pixels(shape):
    with pytest.raises(ValueError, match=r"the reference has no pixels \(shape"):
        encoder_views(torch.zeros(shape), 224)
