"""Pictures and lists of older nodes against formulas of their own: tiles, crops, sharpening, noise, frames, regions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import models, older_lists, older_pictures
from tests.support.older import call
from tests.support.older_lists import Asked

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
BIT = 1 / 255


def pictures(count: int, height: int, width: int) -> Tensor:
    """Smooth ground with noise on it, black and white corners."""
    made = torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(height)) * 0.5
    made = made + torch.linspace(0, 0.5, width)[:, None]
    made[:, :7, :7], made[:, -7:, -7:] = 0, 1
    return made


def close(what: str, found: Tensor, expected: Tensor, limit: float) -> None:
    assert found.shape == expected.shape, f"{tuple(found.shape)} against {tuple(expected.shape)}"
    worst = float((found - expected).abs().max())
    print(f"\n{what}: largest difference {worst:.1e}")
    assert worst <= limit


@pytest.mark.parametrize("amount", [0.05, 0.5, 1.0])
def test_sharpening(amount: float) -> None:
    """At the size that nothing resizes."""
    seen = pictures(2, 224, 224)
    seen = (seen * 255).floor() / 255
    (found,) = call("PrepImageForClipVision", seen, "NEAREST", "center", amount)
    close(f"sharpening {amount}", found, older_pictures.prepared(seen, "NEAREST", "center", amount), 1e-5)


@pytest.mark.parametrize("size", [(40, 61), (95, 50), (33, 33)], ids=str)
@pytest.mark.parametrize("position", ["top", "bottom", "left", "right", "center", "pad"])
def test_prepared(position: str, size: tuple[int, int]) -> None:
    seen = pictures(2, *size)
    for name in ("LANCZOS", "BICUBIC", "HAMMING", "BILINEAR", "BOX", "NEAREST"):
        (found,) = call("PrepImageForClipVision", seen, name, position, 0.0)
        assert torch.equal(found, older_pictures.prepared(seen, name, position, 0.0)), name
    (found,) = call("PrepImageForClipVision", seen, "LANCZOS", position, 0.35)
    close(f"{position} {size}", found, older_pictures.prepared(seen, "LANCZOS", position, 0.35), 1e-5)


@pytest.mark.parametrize("blur", [0, 4])
@pytest.mark.parametrize("strength", [0.4, 1.0])
@pytest.mark.parametrize("kind", ["fade", "dissolve", "gaussian", "shuffle"])
def test_noise(kind: str, strength: float, blur: int) -> None:
    for seen in (pictures(1, 41, 60), pictures(2, 65, 50), None):
        (found,) = call("IPAdapterNoise", kind, strength, blur, seen)
        close(f"{kind} {strength} blur {blur}", found, older_pictures.noise(kind, strength, blur, seen), BIT)


TIMED = ("linear", "ease_in", "ease_out", "ease_in_out")
LISTS = [
    *(Asked("0.2, 1.1", timing, 7) for timing in TIMED),
    *(Asked("1, 0.5, 0.25", timing, 9, 2, 6) for timing in TIMED),
    *(Asked("", timing, 4) for timing in (*TIMED, "custom")),
    Asked("0.1,0.4\n0.8,\n\n 1", "custom", 3),
    Asked("0.3", "linear", 5),
    Asked("1, 0", "linear", 0),
]


@pytest.mark.parametrize("asked", LISTS, ids=str)
def test_lists(asked: Asked) -> None:
    """Without pictures there are no added frames."""
    given = [*vars(asked).values()]
    given[5:7] = [3, 2]
    weights, inverse, total, first, second, _ = call("IPAdapterWeights", *given)
    expected = older_lists.one_batch(asked)
    worst = max(abs(one - other) for one, other in zip(weights, expected, strict=True))
    print(f"\n{asked.timing}: {worst:.1e}")
    assert worst <= 1e-6
    assert inverse == weights[::-1] and total == len(weights)
    assert first is None and second is None


def test_random_lists() -> None:
    ones, twos = (call("IPAdapterWeights", "0.2, 0.7", "random", 50, 5, 40)[0] for _ in range(2))
    assert ones != twos and len(ones) == 50
    assert ones[:5] == [0.2] * 5 and ones[40:] == [0.7] * 10
    assert all(0.2 <= w <= 0.7 for w in ones) and len(set(ones[5:40])) == 35


@pytest.mark.parametrize("method", ["full batch", "shift batches", "alternate batches"])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 3)])
def test_pictures_over_frames(method: str, count: int, before: int, after: int) -> None:
    """Directly, and from the strategy with other pictures; with a prompt for each."""
    asked = Asked("0.1, 0.8", "ease_in", 5, 1, 4, before, after, method)
    numbered = torch.arange(count).reshape(-1, 1, 1, 1).expand(-1, 8, 8, 3).float()
    found = call("IPAdapterWeights", *vars(asked).values(), numbered)
    again = call("IPAdapterWeightsFromStrategy", call("IPAdapterWeights", *vars(asked).values())[5], numbered)
    weights, *images = older_lists.over_frames(asked, count)
    for answer in (found, again):
        assert all(math.isclose(one, other, abs_tol=1e-6) for one, other in zip(answer[0], weights, strict=True))
        assert answer[1] == answer[0][::-1] and answer[2] == len(weights)
        for image, expected in zip(answer[3:5], images, strict=True):
            assert (image is None) is (expected is None)
            assert image is None or image[:, 0, 0, 0].tolist() == expected
    for text in ("one", "one\n\n two\nthree", "1\n2\n3\n4\n5\n"):
        (schedule,) = call("IPAdapterPromptScheduleFromWeightsStrategy", found[5], text)
        assert schedule == older_lists.schedule(text, count, asked)


def test_a_strategy_carries_what_was_typed() -> None:
    asked = Asked("0.1, 0.8", "ease_in", 5, 1, 4, 2, 3, "alternate batches")
    strategy = call("IPAdapterWeights", *vars(asked).values())[5]
    assert {name: strategy[name] for name in vars(asked)} == vars(asked)


@pytest.mark.parametrize("given", [(0.5, 0.25), ([0.1, 0.2], 0.3), ([0.1], [0.2, 0.3])], ids=str)
def test_combined_weights(given: Any) -> None:
    assert call("IPAdapterCombineWeights", *given) == older_lists.combined(*given)


def test_regional_params() -> None:
    """Lists by input, joined in order; texts carry their mask and how strongly they count."""
    seen, place = [pictures(1, 16, 16 + n) for n in range(5)], torch.rand(1, 8, 8)
    text, other = models.text(1), models.text(2)
    first, positive, negative = call(
        "IPAdapterRegionalConditioning", seen[0], 0.7, 0.4, "ease in", 0.1, 0.9, place, text, other
    )
    for made, given in ((positive, text), (negative, other)):
        assert made[0][0] is given[0][0]
        added = {key: value for key, value in made[0][1].items() if key not in given[0][1]}
        assert torch.equal(added.pop("mask"), place)
        assert added == {"mask_strength": 0.4, "set_area_to_bounds": False}
    assert "mask" not in text[0][1]
    rest = [call("IPAdapterRegionalConditioning", one, image_weight=0.2 + n) for n, one in enumerate(seen[1:])]
    assert rest[0][1:] == (None, None)
    (joined,) = call("IPAdapterCombineParams", first, *(one[0] for one in rest))
    assert set(joined) == {"image", "attn_mask", "weight", "weight_type", "start_at", "end_at"}
    assert all(torch.equal(one, expected) for one, expected in zip(joined["image"], seen, strict=True))
    assert joined["attn_mask"][0] is place and joined["attn_mask"][1:] == [None] * 4
    assert joined["weight"] == [0.7, 0.2, 1.2, 2.2, 3.2]
    assert joined["weight_type"] == ["ease in", *["linear"] * 4]
    assert joined["start_at"] == [0.1, 0, 0, 0, 0] and joined["end_at"] == [0.9, 1, 1, 1, 1]
