"""Image Attention Map: what it shows, which layers it takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.nodes.test_record import adapter, forms, mapped, maps, model, record, recorded, run, sites
from tests.support import models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]


def test_layers_by_number_range_and_section() -> None:
    numbers = models.core.module_numbers(sites())

    def named(words: str) -> set[int]:
        return {numbers[index] for index in maps.layers_of(words, sites())}

    assert named("") == set(range(16)) and named("3, 6-8") == {3, 6, 7, 8}
    assert named("Middle") == {6} and named("down,up") == set(range(16)) - {6}


def execute(found: Any, latents: Tensor, **inputs: Any) -> Any:
    given = {"reference": 0, "layers": "", "start_percent": 0.0, "end_percent": 1.0, "normalise": True} | inputs
    return forms.ImageAttentionMap.execute(found, {"samples": latents}, **given)


def test_the_node_shows_it() -> None:
    patched, found = recorded(models.apply(model(), adapter(), models.Features.random()))
    latents = run(patched, batch=2)
    image, values = execute(found, latents).args
    _, shares = execute(found, latents, normalise=False).args
    assert image.shape == (2, 128, 128, 3) and values.shape == (2, 16, 16)
    low, high = shares.amin((1, 2), keepdim=True), shares.amax((1, 2), keepdim=True)
    assert torch.allclose(values, (shares - low) / (high - low)) and torch.equal(shares, mapped(found, latents))
    picture = torch.rand(2, 100, 120, 3)
    over, _ = execute(found, latents, picture=picture).args
    assert over.shape == picture.shape and over.min() >= 0 and over.max() <= 1
    assert torch.equal(maps.shown(torch.zeros(2, 16, 16), picture), picture)  # nothing acts: the picture itself
    grey = maps.heat(torch.linspace(0, 1, 50)[None, None]).mean(-1)
    assert (grey.diff() > 0).all()


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"reference": 1}, "there is no reference 1: the model has 1"),
        ({"layers": "3, 77"}, "there are no layers '77': write attention modules from 0 to 15"),
        ({"layers": "upper"}, "there are no layers 'upper'"),
        ({"layers": "6"}, "reference 0 does not act in the layers '6'"),
        ({"picture": torch.rand(3, 8, 8, 3)}, "there are 3 pictures for 1 maps"),
    ],
)
def test_bad_input(inputs: dict[str, Any], sentence: str) -> None:
    patched, found = recorded(
        models.apply(model(), adapter(), models.Features.random(), layers="middle off (as in older packs)")
    )
    latents = run(patched, size=(8, 8))
    with pytest.raises(ValueError, match=sentence):
        execute(found, latents, **inputs)


def test_a_record_of_nothing_or_of_something_else() -> None:
    with pytest.raises(ValueError, match="nothing has been recorded"):
        execute(record.Record(), torch.zeros(1, 4, 8, 8))
    patched, found = recorded(model())
    latents = run(patched, size=(8, 8))
    with pytest.raises(ValueError, match="no image prompt is on the model"):
        execute(found, latents)
    with pytest.raises(ValueError, match="the record is of latents 8 x 8, 1 of them, this latent is 16 x 8"):
        execute(found, torch.zeros(1, 4, 16, 8))
    with pytest.raises(ValueError, match="has no cross-attention layers"):
        forms.RecordAttention.execute(models.transformer())


def test_a_kind_of_model_that_is_not_recorded() -> None:
    block = models.core.Site(0, ("double", 0), "transformer_blocks.0.attn", "double_blocks.0")
    with pytest.raises(ValueError, match="attention is recorded in UNets only"):
        record.with_record(model(), [block])
