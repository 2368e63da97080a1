"""Where an image prompt acts: masks of any size on latents of any size, and the ways to combine references."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.support import figures, models

pytestmark = pytest.mark.comfy
BAR = 1e-5


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    return models.adapter_weights("base", models.comfy_model("SD15", 32))


def predict(model: Any, size: tuple[int, int], batch: int = 1, positive: Any = None) -> torch.Tensor:
    with models.Calls(model) as calls:
        models.sample(model, positive or models.text(5), models.text(0), steps=1, size=size, batch=batch)
    return calls[0]["output"]


@pytest.mark.parametrize("size", [(16, 16), (13, 37), (8, 96), (9, 7)])
@pytest.mark.parametrize("mask_size", [(128, 128), (1, 1), (300, 17)])
def test_two_halves_make_the_whole(size: tuple[int, int], mask_size: tuple[int, int]) -> None:
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    mask = torch.rand(1, *mask_size, generator=torch.Generator().manual_seed(4))
    whole = predict(models.apply(model, weights(), prompt), size)
    halves = models.apply(models.apply(model, weights(), prompt, mask=mask), weights(), prompt, mask=1 - mask)
    half = predict(models.apply(model, weights(), prompt, mask=mask), size)
    error, effect = figures.relative(predict(halves, size), whole), figures.relative(half, whole)
    print(f"\nlatent {size}, mask {mask_size}: two halves {error:.1e}, one half {effect:.1e}")
    assert error <= BAR < effect


def test_all_and_nothing() -> None:
    model, prompt, size = models.comfy_model("SD15", 32), models.Features.random(), (12, 20)
    ones, zeros = torch.ones(1, 60, 60), torch.zeros(1, 60, 60)
    everywhere = predict(models.apply(model, weights(), prompt, mask=ones), size)
    nowhere = predict(models.apply(model, weights(), prompt, mask=zeros), size)
    assert figures.relative(everywhere, predict(models.apply(model, weights(), prompt), size)) <= 1e-6
    assert torch.equal(nowhere, predict(model, size))


def test_a_mask_for_each_latent() -> None:
    model, prompt, size = models.comfy_model("SD15", 32), models.Features.random(), (16, 16)
    masks = torch.stack([torch.ones(64, 64), torch.zeros(64, 64)])
    both = predict(models.apply(model, weights(), prompt, mask=masks), size, batch=2)
    full, none = (predict(m, size, batch=2) for m in (models.apply(model, weights(), prompt), model))
    # chunks of two latents each: the first of a chunk has the picture, the second has not
    for first in (0, 2):
        assert figures.relative(both[first], full[first]) <= BAR
        assert figures.relative(both[first + 1], none[first + 1]) <= BAR


def test_a_mask_is_cut_to_the_area_of_a_conditioning() -> None:
    """A positive on the lower half sees the lower half of the mask: nothing of a mask that covers the upper half."""
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    upper = torch.zeros(1, 128, 128)
    upper[:, :64] = 1
    for area, is_covered in (((8, 16, 0, 0), True), ((8, 16, 8, 0), False)):
        positive = models.text(5, area=area, strength=1.0)
        outputs = []
        for patched in (
            models.apply(model, weights(), prompt, mask=upper),
            models.apply(model, weights(), prompt),
            model,
        ):
            with models.Calls(patched) as calls:
                models.sample(patched, positive, models.text(0), steps=1, size=(16, 16))
            outputs.append(next(call["output"] for call in calls if call["x"].shape[-2:] == (8, 16)))
        masked, full, none = outputs
        assert figures.relative(masked, full if is_covered else none) <= BAR
        assert figures.relative(masked, none if is_covered else full) > 1e-3


def test_references_at_once_are_their_tokens_side_by_side() -> None:
    """Two pictures at once: the conditional chunk attends to both pictures' tokens in one softmax."""
    from tests.support import oracles

    model, prompt = models.comfy_model("SD15", 32), models.Features.random(pictures=2)
    patched = models.apply(model, weights(), prompt)
    with models.Calls(patched) as calls:
        models.sample(patched, models.text(5), models.text(0), cfg=1.0, steps=1)
    (call,) = calls
    with oracles.diffusers_loader(models.diffusers_unet("SD15", 32), [weights()], [1.0]) as reference:
        predicted = reference(call["x"], call["t"], call["context"], [prompt.features("pooled")[None]])
    error = figures.relative(call["output"], predicted)
    print(f"\ntwo pictures at once: diffusers {error:.1e}")
    assert error <= BAR


def test_average_is_one_picture_of_the_mean() -> None:
    model, prompt = models.comfy_model("SD15", 32), models.Features.random(pictures=3)
    mean = models.Features(prompt.features("pooled").mean(0, keepdim=True), prompt.features("penultimate")[:1])
    averaged = predict(models.apply(model, weights(), prompt, combine="average"), (16, 16))
    assert figures.relative(averaged, predict(models.apply(model, weights(), mean), (16, 16))) <= BAR
