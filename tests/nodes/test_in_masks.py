"""Apply in Masks: the same as a chain of Apply IP-Adapter, each picture with its mask; and tiles in their places."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.support import figures, host, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
BAR = 1e-6

core, form = host.part("ipadapter_core.method.tiles"), host.part("nodes.forms.apply_in_masks")


@functools.cache
def adapter(family: str) -> Any:
    return models.loaded_adapter(models.adapter_weights(family, models.comfy_model("SD15", 32)))


def only(prompt: Any, number: int) -> Any:
    """One picture of random features, cut out by hand."""
    pooled, penultimate = (prompt.features(name)[number : number + 1] for name in ("pooled", "penultimate"))
    return models.Features(pooled, penultimate, prompt.zero_states())


def predict(model: Any) -> torch.Tensor:
    with models.Calls(model) as calls:
        models.sample(model, models.text(5), models.text(0), steps=1, size=(12, 16))
    return calls[0]["output"]


def in_masks(family: str, prompt: Any, masks: torch.Tensor, **settings: Any) -> Any:
    """The node, as ComfyUI runs it."""
    with torch.inference_mode():
        node = form.ApplyInMasks
        return node.execute(models.comfy_model("SD15", 32), adapter(family), prompt, masks, **settings).result[0]


@pytest.mark.parametrize("family", ["base", "plus"])
def test_a_chain_of_masks(family: str) -> None:
    prompt, model = models.Features.random(pictures=3), models.comfy_model("SD15", 32)
    masks = core.tile_masks(core.tiling(96, 128, 1, 3, 0.25), 96, 128, (48, 64))
    chain = model
    for number in range(3):
        mask = masks[number : number + 1]
        chain = models.apply(chain, adapter(family), only(prompt, number), weight=0.7, mask=mask)
    ours = predict(in_masks(family, prompt, masks, weight=0.7))
    figures.show(f"{family}, three pictures", ours, predict(chain), BAR)
    assert figures.relative(predict(model), ours) > 1e-3
    assert figures.relative(predict(in_masks(family, prompt, masks.flip(0), weight=0.7)), ours) > 1e-3


def test_one_picture_in_every_mask_is_one_picture() -> None:
    """Masks that sum to one, with the same picture in each: Apply without a mask."""
    prompt = models.Features.random()
    same = models.Features(*(torch.cat([prompt.features(name)] * 4) for name in ("pooled", "penultimate")))
    masks = core.tile_masks(core.tiling(96, 128, 2, 2, 0.25), 96, 128, (96, 128))
    whole = predict(models.apply(models.comfy_model("SD15", 32), adapter("base"), prompt))
    figures.show("four tiles of one picture", predict(in_masks("base", same, masks)), whole, 1e-5)


@pytest.mark.parametrize(("count", "words"), [(2, "has 3 pictures, and there are 2 masks"), (4, "there are 4 masks")])
def test_as_many_masks_as_pictures(count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        in_masks("base", models.Features.random(pictures=3), torch.ones(count, 8, 8))
