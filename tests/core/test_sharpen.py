"""Contrast adaptive sharpening, against its formula written out pixel by pixel, and where it acts."""

import math

import numpy as np
import pytest
import torch

from ipadapter_core.method.picture import encoder_views, square, to_pil
from ipadapter_core.method.sharpen import sharpened

LIMIT = 1e-6


def picture(height: int = 9, width: int = 11, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


def by_formula(values: np.ndarray, amount: float) -> np.ndarray:
    """One channel [H, W] by FidelityFX CAS, one pixel after the other; outside of the picture is zero."""
    height, width = values.shape
    ground = np.zeros((height + 2, width + 2))
    ground[1:-1, 1:-1] = values
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            (a, b, c), (d, e, f), (g, h, i) = ground[y : y + 3, x : x + 3]
            low = min(b, d, e, f, h) + min(a, c, g, i)
            high = max(b, d, e, f, h) + max(a, c, g, i)
            if high == 0:
                continue
            weight = -math.sqrt(min(low, 2 - high) / high) * (amount * (1 / 5 - 1 / 8) + 1 / 8)
            result[y, x] = min(max(((b + d + f + h) * weight + e) / (1 + 4 * weight), 0), 1)
    return result


@pytest.mark.parametrize("amount", [0.01, 0.5, 1.0])
def test_formula(amount):
    ours = sharpened(picture(), amount)[0].numpy()
    worst = max(
        np.abs(ours[..., channel] - by_formula(picture()[0, ..., channel].double().numpy(), amount)).max()
        for channel in range(3)
    )
    print(f"amount {amount}: largest difference {worst:.1e} of 1")
    assert worst <= LIMIT and np.abs(ours - picture()[0].numpy()).max() > 0.02


@pytest.mark.parametrize("grey", [0.0, 0.4, 1.0])
def test_an_even_picture_stays(grey):
    even = torch.full((1, 6, 6, 3), grey)
    assert torch.allclose(sharpened(even, 1.0), even, atol=LIMIT)


def test_edges_of_the_picture_stay():
    ours = sharpened(picture(), 1.0)
    for side in (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1]):
        assert torch.equal(ours[side], picture()[side])


def test_the_square_is_sharpened_and_of_8_bits():
    """After the resize: what is seen is the sharpened square, to the nearest of 255; 0 is not a bit of change."""
    image = picture(70, 50)
    plain, seen = encoder_views(image, 24), encoder_views(image, 24, sharpening=0.7)
    cut = np.asarray(square(to_pil(image[0]), 24)).astype(np.float64) / 255
    expected = np.stack([by_formula(cut[..., channel], 0.7) for channel in range(3)], -1)
    worst = np.abs(seen[0].numpy() - expected).max()
    print(f"largest difference {worst * 255:.3f} of 255, of the rounding")
    assert worst <= 0.5 / 255 + LIMIT
    assert torch.equal((seen * 255).round() / 255, seen)
    assert torch.equal(encoder_views(image, 24, sharpening=0.0), plain) and not torch.equal(seen, plain)


@pytest.mark.parametrize("amount", [-0.1, 1.5, float("nan")])
def test_amounts_out_of_range(amount):
    with pytest.raises(ValueError, match="expected 0 \\(nothing\\) to 1"):
        sharpened(picture(), amount)
