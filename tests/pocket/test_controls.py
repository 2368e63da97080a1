"""The evidence of the controls: what layers get of a prompt, against formulas, and what it counts by."""

from __future__ import annotations

import pytest
import torch

from ipadapter_core import Curve, Layers
from ipadapter_core.facts.presets import MIDDLE_OFF
from pocket.evidence.controlled import steps
from pocket.evidence.controls import page, regions, strips
from pocket.evidence.orders import FINE, GLOBAL, OUTER, Order, build_world
from pocket.evidence.prompt import (
    BACKGROUND_PART,
    LOWER_LEFT,
    LOWER_RIGHT,
    OPPOSITE,
    PARTS,
    REFERENCE,
    SECOND,
    THIRD,
    UPPER,
    Prompt,
    part_masks,
    slices,
)
from pocket.evidence.studio import Made, Studio
from pocket.training.judge import Verdict
from pocket.world.drawing import SIDE
from pocket.world.scenes import BACKGROUND, COLOUR, DEVELOP, FINAL, PATTERN, SIZE
from tests.support.figures import show

ROWS = torch.arange(2)


def of_step(studio: Studio, prompt: Prompt, timestep: int = 500, adapter: str = GLOBAL) -> dict:
    order = Order(2, adapter, prompts=(prompt,))
    return steps(studio, order, ROWS, studio.frozen.base.unet)(torch.tensor(timestep))


def test_a_neutral_prompt_is_the_order_without_controls(studio: Studio) -> None:
    unet = studio.frozen.base.unet
    for adapter in (GLOBAL, FINE):
        wanted = studio._prompts(Order(2, adapter, weight=0.55, groups=OUTER), ROWS, unet)
        found = of_step(studio, Prompt(weight=0.55, layers=Layers(MIDDLE_OFF)), adapter=adapter)
        assert found.keys() == wanted.keys()
        for index, (image,) in found.items():
            assert torch.equal(image.k, wanted[index][0].k)
            assert torch.equal(image.v, wanted[index][0].v)


def test_a_curve_is_a_factor_by_timestep(studio: Studio) -> None:
    curve = Curve.spread((2, 0))
    for timestep in (999, 750, 1):
        (image,) = of_step(studio, Prompt(curve=curve), timestep)[1]
        show(f"timestep {timestep}", image.factor, torch.full((1, 1, 1), 2 * timestep / 999), 1e-6)
    assert of_step(studio, Prompt(curve=Curve.window(0.5, 1)), 700) == {}


def test_a_negative_stands_where_no_picture_was(studio: Studio) -> None:
    """Its K' are those of its own picture, in the unconditional half; the other half stays."""
    plain, negative = (of_step(studio, Prompt(negative=one)) for one in ("", OPPOSITE))
    own = of_step(studio, Prompt((OPPOSITE,)))
    for index, (image,) in negative.items():
        show(f"layer {index}, negative", image.k[:2], own[index][0].k[2:], 1e-6)
        assert torch.equal(image.k[2:], plain[index][0].k[2:])
        assert float((image.k[:2] - plain[index][0].k[:2]).abs().max()) > 1e-3


def test_pictures_of_a_batch_keep_their_tokens_or_become_one(studio: Studio) -> None:
    one, two = (of_step(studio, Prompt((source,)))[1][0] for source in (REFERENCE, SECOND))
    both = of_step(studio, Prompt((REFERENCE, SECOND), picture_weights=(1, 0.5)))[1][0]
    show("K'", both.k[2:], torch.cat([one.k, two.k], 1)[2:], 1e-6)
    show("V'", both.v[2:], torch.cat([one.v, 0.5 * two.v], 1)[2:], 1e-6)
    first = of_step(studio, Prompt((REFERENCE, SECOND), combine="average", picture_weights=(1, 0)))[1][0]
    show("average of the first alone", first.v, one.v, 1e-5)


@pytest.mark.parametrize("side", [4, 8, SIDE])
def test_parts_and_the_background_are_the_whole_once(side: int) -> None:
    prompts = (Prompt(part=UPPER), Prompt(part=LOWER_LEFT), Prompt(part=BACKGROUND_PART), Prompt())
    *masks, everywhere = part_masks(prompts, side)
    assert everywhere is None
    assert torch.equal(sum(masks), torch.ones(side, side))
    corner = torch.zeros(side, side)
    corner[side // 2 :, side // 2 :] = 1
    assert torch.equal(masks[2], corner)
    for part in PARTS:
        assert part_masks((Prompt(part=part),), side)[0][slices(part, side)].min() == 1


def test_companions_differ_as_they_should() -> None:
    for seed in (DEVELOP, FINAL):
        world = build_world(seed)
        scenes = world.references.scenes
        second, third, opposite = (scenes[world.others[name]] for name in (SECOND, THIRD, OPPOSITE))
        told = [COLOUR, BACKGROUND, PATTERN]
        for one, two in ((scenes, second), (scenes, third), (second, third)):
            assert bool((one[:, told] != two[:, told]).all())
            assert torch.equal(one[:, SIZE], two[:, SIZE])
        assert bool((scenes != opposite).all())


def test_the_ruler_of_regions_reads_the_references_own_parts() -> None:
    """All is its own and nothing another's; with the parts exchanged it is the other way round."""

    class World:
        world = staticmethod(build_world)

    count = 64
    scenes = build_world(DEVELOP).references.scenes[:count]
    nothing = Verdict(scenes, torch.zeros(count, dtype=torch.bool), torch.zeros(count, 2))
    made = Made(Order(count), torch.zeros(count, 3, SIDE, SIDE), nothing, scenes)
    turned = {REFERENCE: LOWER_LEFT, SECOND: LOWER_RIGHT, THIRD: UPPER}
    for layout, wanted in ((regions.THREE, (1, 0)), (turned, (0, 1))):
        drawn = regions.drawn(World, made, layout)  # type: ignore[arg-type]
        for part, found in regions.told_of(World, drawn, regions.THREE).items():  # type: ignore[arg-type]
            shares = [one.float().mean(0) for one in found]
            print(f"\n{part}: own {shares[0].tolist()}, another's {shares[1].tolist()}")
            for share, target in zip(shares, wanted, strict=True):
                assert float((share[:2] - target).abs().max()) <= 0.1  # fill and background; a ring may hide a fill


def test_settings_have_one_name_and_are_different_pictures() -> None:
    orders = [order for claim in page.CLAIMS for order in claim.orders.values()]
    assert len(set(orders)) == len(orders)
    for name, strip in strips.STRIPS.items():
        made = [one for one in strip.values() if isinstance(one, Order)]
        assert len(set(made)) == len(made), name
