"""Reference Noise: each kind by its formula or its statistics, seeds, and what is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import host

pytestmark = pytest.mark.comfy

noise, form = (host.part(f"nodes.{name}") for name in ("prompts.noise", "forms.noise"))
UNIFORM = 1 / math.sqrt(12)  # deviation of uniform numbers


def make(kind: str, strength: float = 1.0, seed: int = 0, blur: float = 0.0, **inputs: Any) -> Tensor:
    """The node, as ComfyUI runs it."""
    with torch.inference_mode():
        return form.ReferenceNoise.execute(kind, strength, blur, seed, **inputs).result[0]


def picture(count: int = 1, height: int = 128, width: int = 192) -> Tensor:
    """Smooth: red grows to the right, green downwards, blue is even."""
    red = torch.linspace(0.25, 0.75, width).expand(height, width)
    green = torch.linspace(0.25, 0.75, height)[:, None].expand(height, width)
    return torch.stack([red, green, torch.full((height, width), 0.5)], -1).expand(count, -1, -1, -1)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_every_kind(kind: str) -> None:
    """Strength 0 is the picture; a seed is one picture, on its own generator; a batch has noise of its own each."""
    assert torch.equal(make(kind, 0.0, image=picture()), picture())
    state = torch.get_rng_state()
    first = make(kind, 0.6, 7, image=picture(2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(first, make(kind, 0.6, 7, image=picture(2)))
    assert not torch.equal(first, make(kind, 0.6, 8, image=picture(2)))
    assert not torch.equal(first[0], first[1])
    assert first.shape == (2, 128, 192, 3) and first.min() >= 0 and first.max() <= 1
    assert make(kind, seed=2**64 - 1).shape == (1, 512, 512, 3)
    assert make(kind, size=64).shape == (1, 64, 64, 3)
    assert make(kind, image=torch.rand(1, 1, 1, 4)).shape == (1, 1, 1, 3)
    assert make(kind, image=torch.rand(1, 5, 9, 1)).shape == (1, 5, 9, 3)


def test_fade_by_formula() -> None:
    """Between picture and one and the same uniform noise."""
    even = make("fade", 1.0, 3, image=picture())
    print(f"\nuniform: mean {even.mean():.4f}, deviation {even.std():.4f} (expected 0.5, {UNIFORM:.4f})")
    assert even.mean() == pytest.approx(0.5, abs=0.01) and even.std() == pytest.approx(UNIFORM, abs=0.01)
    difference = (make("fade", 0.3, 3, image=picture()) - (0.7 * picture() + 0.3 * even)).abs().max()
    assert difference <= 1e-6


def test_dissolve_replaces_pixels() -> None:
    result = make("dissolve", 0.3, image=picture())
    stays = (result == picture()).all(-1)
    print(f"\n{1 - stays.float().mean():.3f} of the pixels were replaced (asked for 0.3)")
    assert stays.float().mean() == pytest.approx(0.7, abs=0.02)
    assert result[~stays].mean() == pytest.approx(0.5, abs=0.02)
    assert result[~stays].std() == pytest.approx(UNIFORM, abs=0.02)


def test_gaussian_adds() -> None:
    added = make("gaussian", 0.05, image=picture()) - picture()
    print(f"\nadded: mean {added.mean():.4f}, deviation {added.std():.4f} (asked for 0.05)")
    assert added.mean() == pytest.approx(0, abs=0.002) and added.std() == pytest.approx(0.05, abs=0.002)


def test_shuffle_mirrors_and_moves() -> None:
    """Weak: nearly the picture turned by half, places moved by a few pixels; strong: far, with noise."""
    turned = picture().flip(1, 2)
    weak, strong = (make("shuffle", strength, image=picture()) for strength in (0.02, 1.0))
    away = [(result - turned).abs().mean().item() for result in (weak, strong)]
    print(f"\nmean distance from the turned picture: {away[0]:.3f} weak, {away[1]:.3f} strong")
    assert away[0] < 0.03 < 0.15 < away[1]
    assert (weak - picture()).abs().mean() > 0.1
    assert (make("shuffle", 0.02, 1, image=picture(1, 1, 300)) - picture(1, 1, 300).flip(2)).abs().mean() < 0.05


def test_shuffle_looks_the_same_at_every_size() -> None:
    """Moved by the same part of the picture: one large and one small, of one seed, shrunk to one size."""
    moved = [noise._moved(picture(1, side, side), 0.3, torch.Generator().manual_seed(5)) for side in (224, 448)]
    small = torch.nn.functional.avg_pool2d(moved[1].movedim(-1, 1), 2).movedim(1, -1)
    difference = (small - moved[0]).abs().mean().item()
    print(f"\nmean difference {difference:.4f}; moved by {(moved[0] - picture(1, 224, 224)).abs().mean():.4f}")
    assert difference < 0.25 * (moved[0] - picture(1, 224, 224)).abs().mean()


@pytest.mark.parametrize("blur", [0.5, 2.0, 30.0])
def test_blur_is_a_gaussian(blur: float) -> None:
    """Of a point: a bell of this deviation, all of it kept; of the edges: what is even stays."""
    point = torch.zeros(1, 1, 221, 221)
    point[..., 110, 110] = 1
    result = noise.blurred(point, blur)[0, 0].double()
    places = torch.arange(221).double() - 110
    deviation = (result.sum(0) * places**2).sum().sqrt().item()
    print(f"\nasked for {blur}, deviation {deviation:.3f}, sum {result.sum():.6f}")
    assert deviation == pytest.approx(blur, rel=0.1) and result.sum() == pytest.approx(1, abs=1e-5)
    even = noise.blurred(torch.full((1, 3, 4, 5), 0.3), blur)
    assert torch.allclose(even, torch.full_like(even, 0.3), atol=1e-6)
    assert make("gaussian", 1.0, 0, blur).std() < make("gaussian", 1.0, 0, 0.0).std()


@pytest.mark.parametrize(
    ("kind", "inputs", "words"),
    [
        ("salt", {}, "unknown kind of noise 'salt': choose one of fade"),
        ("fade", {"strength": 2.0}, "expected 0 to 1"),
        ("fade", {"blur": -1.0}, "0 or more pixels"),
        ("fade", {"image": torch.zeros(1, 0, 8, 3)}, "the picture has no pixels"),
    ],
)
def test_what_is_refused(kind: str, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(kind, **inputs)
