"""Region and Regional Prompts: every reference in its own mask is the formula of references with masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support import figures, held, host, layer_formulas, models
from tests.support.refusals import refusal

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
forms = host.part("nodes.forms.regions")


def region(prompt: Any, mask: Tensor | None = None, **inputs: Any) -> Any:
    """The node Region."""
    return forms.RegionNode.execute(prompt, mask=mask, **inputs).result[0]


def regional(*regions: Any, text: Any = None, adapter: Any = None) -> tuple[Any, Any]:
    """The node Regional Prompts; None among the regions is a socket that is not connected."""
    grown = {f"region_{number}": of for number, of in enumerate(regions)}
    model, positive = forms.RegionalPrompts.execute(held.model(), adapter or held.adapter(), grown, text=text).result
    return model, positive


def random_mask(height: int, width: int, count: int = 1, seed: int = 4) -> Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed))


def text(seed: int) -> Any:
    return models.text(seed, tokens=7)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_references_in_their_masks(count: int) -> None:
    """Each mask of another size, each reference with another weight."""
    prompts = [held.prompt(1, seed) for seed in range(20, 20 + count)]
    masks = [random_mask(8 + 3 * n, 16 - 2 * n, seed=n) for n in range(count)]
    places = [region(of, mask, weight=0.5 + 0.2 * n) for n, (of, mask) in enumerate(zip(prompts, masks))]
    said = [held.said(of=of, mask=m, weight=0.5 + 0.2 * n) for n, (of, m) in enumerate(zip(prompts, masks))]
    model, _ = regional(*places)
    held.hold(f"\n{count} regions", held.calls_of(model, size=(8, 12)), said, other=said[1:])


def test_the_background_is_what_the_others_leave() -> None:
    """Masks of different sizes and counts: the background is 1 less their sum, at the largest one's size."""
    one, two = random_mask(8, 8, seed=1) * 0.5, random_mask(16, 16, 2, seed=2)
    prompts = [held.prompt(1, seed) for seed in (20, 21, 22)]
    model, _ = regional(region(prompts[0], one), region(prompts[1]), region(prompts[2], two))
    stretched = F.interpolate(one[None], (16, 16), mode="bilinear")[0]
    rest = (1 - stretched - two).clamp(0, 1)
    said = [held.said(of=of, mask=mask) for of, mask in zip(prompts, (one, rest, two))]
    everywhere = [*said[:1], held.said(of=prompts[1]), *said[2:]]
    held.hold("\nbackground", held.calls_of(model, batch=2), said, other=everywhere)


def test_a_region_alone_without_a_mask_is_everywhere() -> None:
    model, _ = regional(region(held.prompt()))
    held.hold("\nonly a background", held.calls_of(model), [held.said()], other=[])


def test_every_control_of_a_region_is_its_own() -> None:
    one, two, negative = held.prompt(2, seed=20), held.prompt(2, seed=21), held.prompt(1, seed=9)
    left, right = random_mask(8, 8, seed=1), random_mask(8, 8, seed=2)
    model, _ = regional(
        region(one, left, weight=0.7, layers="ease in", embeds_scaling="K+V", combine="average", negative=negative),
        region(two, right, weight=[0.2, 1.1], picture_weights="1, -0.5", rescale=0.6, end_percent=0.5),
    )
    said = [
        held.said(of=one, mask=left, weight=0.7, shares=layer_formulas.shares("ease in", 16), scaling="K+V",
                  combine="average", negative=negative),
        held.said(of=two, mask=right, frames=(0.2, 1.1), picture_weights=(1, -0.5), rescale=0.6,
                  curve=lambda place: float(place <= 0.5)),
    ]  # fmt: skip
    held.hold("\nown controls", held.calls_of(model, progress=(0.3, 0.7), batch=2), said, other=said[:1])


def test_texts_are_what_conditioning_set_mask_gives() -> None:
    """The regions' texts in their masks, the text of all where no region has its own."""
    from nodes import ConditioningSetMask  # ComfyUI's

    left, right = random_mask(8, 8, seed=1), random_mask(16, 8, seed=2)
    one, two = region(held.prompt(1, 20), left, text=text(31)), region(held.prompt(1, 21), right, text=text(32))
    plain = region(held.prompt(1, 22), random_mask(8, 8, seed=3))
    model, positive = regional(one, two, plain, text=text(33))
    rest = (1 - F.interpolate(left[None], (16, 8), mode="bilinear")[0] - right).clamp(0, 1)
    pieces = [(text(33), rest), (text(31), left), (text(32), right)]
    theirs = [part for of, mask in pieces for part in ConditioningSetMask().append(of, mask, "default", 1.0)[0]]
    assert len(positive) == len(theirs) == 3
    for ours, their in zip(positive, theirs):
        assert torch.equal(ours[0], their[0]) and ours[1].keys() == their[1].keys()
        assert torch.allclose(ours[1]["mask"], their[1]["mask"], atol=1e-6)
        assert ours[1]["mask_strength"] == their[1]["mask_strength"] == 1.0
        assert ours[1]["set_area_to_bounds"] is their[1]["set_area_to_bounds"] is False
    ours, their = (models.sample(model, which, text(0), steps=2, size=(8, 8)) for which in (positive, theirs))
    figures.show("texts of regions against Conditioning (Set Mask)", ours, their, held.BAR)


def test_every_chunk_of_the_texts_gets_the_pictures() -> None:
    """All texts are positive, so all of their predictions are conditional."""
    left, right = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    left[..., :4], right[..., 4:] = 1, 1
    prompts = [held.prompt(1, seed) for seed in (20, 21)]
    places = [region(of, m, text=text(s)) for of, m, s in zip(prompts, (left, right), (31, 32))]
    model, positive = regional(*places, text=text(33))
    assert len(positive) == 2  # nothing is left for the text of all
    said = [held.said(of=of, mask=mask) for of, mask in zip(prompts, (left, right))]
    calls = held.calls_of(model, positive=positive)
    assert sorted(role for call in calls for role in call["roles"]) == [0, 0, 1]
    held.hold("\ntexts of regions", calls, said, other=said[:1])


def test_texts_where_there_is_nothing_to_mask() -> None:
    """No region with a text: the text of all, as it is. No text at all: nothing."""
    mask = random_mask(8, 8)
    _, positive = regional(region(held.prompt(), mask), text=text(33))
    assert len(positive) == 1 and torch.equal(positive[0][0], text(33)[0][0]) and "mask" not in positive[0][1]
    assert regional(region(held.prompt(), mask))[1] == []
    _, alone = regional(region(held.prompt(), text=text(31)), text=text(33))  # a background that is everywhere
    assert len(alone) == 1 and torch.equal(alone[0][0], text(31)[0][0])


def test_a_gap_among_the_sockets() -> None:
    """A socket in the middle that is not connected changes nothing."""
    prompts, masks = [held.prompt(1, 20), held.prompt(1, 21)], [random_mask(8, 8, seed=n) for n in (1, 2)]
    one, two = (region(of, mask) for of, mask in zip(prompts, masks))
    (a,), (b,) = (held.calls_of(regional(*places)[0]) for places in ((one, two), (one, None, two)))
    assert torch.equal(a["output"], b["output"])


@contextmanager
def loads(*adapters: Any) -> Iterator[Counter[int]]:
    """How often each adapter is loaded."""
    import comfy.model_management

    counts: Counter[int] = Counter()
    before = comfy.model_management.load_models_gpu

    def counting(patchers: Any, *args: Any, **kwargs: Any) -> Any:
        counts.update(n for n, adapter in enumerate(adapters) if any(p is adapter.patcher for p in patchers))
        return before(patchers, *args, **kwargs)

    comfy.model_management.load_models_gpu = counting
    try:
        yield counts
    finally:
        comfy.model_management.load_models_gpu = before


def test_a_region_with_an_adapter_of_its_own_and_one_load_of_each() -> None:
    prompts, masks = [held.prompt(1, n) for n in (20, 21, 22)], [random_mask(8, 8, seed=n) for n in (1, 2, 3)]
    one, two, three = (dict(prompt=of, mask=mask) for of, mask in zip(prompts, masks))
    fine = held.adapter("plus")
    model, _ = regional(region(**one), region(**two, adapter=fine), region(**three))
    said = [held.said(family, of=of, mask=mask) for family, of, mask in zip(("base", "plus", "base"), prompts, masks)]
    host.part("nodes.kept").clear()  # what another test left there would need no load
    with loads(held.adapter(), fine) as counts:
        calls = held.calls_of(model, progress=(0.2, 0.5))
    held.hold("\nan adapter of its own", calls, said, other=[*said[:1], *said[2:]])
    assert counts == {0: 1, 1: 1}


def test_a_refusal_names_the_region() -> None:
    mask, good = random_mask(8, 8), region(held.prompt(), random_mask(8, 8))
    narrow = models.Features(torch.randn(1, 768), torch.randn(1, 3, 1280))
    with refusal("region 2", "768"):
        regional(good, region(narrow, mask))
    with refusal("region 3", "2 weights", "1 picture:"):
        regional(good, good, region(held.prompt(), mask, picture_weights="1, 2"))
    with refusal("region 1", "module", "0 to 15"):
        regional(region(held.prompt(), mask, layer_weights=models.core.Layers(text="16: 1")), good)
    with refusal("mask", "no pixels"):  # by the node of the region itself
        region(held.prompt(), torch.zeros(1, 0, 0))
    with refusal("no regions", "connect"):
        regional(None)
