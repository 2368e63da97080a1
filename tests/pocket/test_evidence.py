"""The measures behind docs/evidence.md: intervals, base rates, references, the ruler of halves, masks and groups."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ipadapter_core import ImageKV
from pocket.evidence import __main__ as command
from pocket.evidence import card, regions, structure, together
from pocket.evidence.alone import against_wrong, base_rates
from pocket.evidence.figures import Bar, Findings, mean, read_findings
from pocket.evidence.fine import off_by
from pocket.evidence.orders import ANY_SHAPE, GROUPS, ONE_SHAPE, Order, build_world
from pocket.evidence.structure import HALVES
from pocket.evidence.studio import Made, half_masks, layers_of
from pocket.places import Places
from pocket.training import base
from pocket.training.data import references
from pocket.training.judge import Verdict
from pocket.world.drawing import SIDE, chance, draw
from pocket.world.scenes import (
    BACKGROUND,
    COLOUR,
    DEVELOP,
    FINAL,
    PATTERN,
    SHAPE,
    SIZE,
    is_held_out,
    random_scenes,
)
from tests.support.figures import show
from trainer.base.processor import AdapterOutput, install
from trainer.base.sites import sites_of, unet_layers


def test_an_interval_is_that_of_the_mean() -> None:
    """Against the normal approximation, which is good for 2,000 values with a share of a third."""
    right = torch.arange(2_000) % 3 == 0
    figure = mean(right)
    share = float(right.double().mean())
    half = 1.96 * (share * (1 - share) / len(right)) ** 0.5
    print(f"\nbootstrap {figure}; normal {share - half:.3f} to {share + half:.3f}")
    assert figure.value == pytest.approx(share)
    assert figure.low == pytest.approx(share - half, abs=3e-3)
    assert figure.high == pytest.approx(share + half, abs=3e-3)


def test_base_rates_are_those_of_all_pairs() -> None:
    scenes = build_world(DEVELOP, 24).references.scenes
    pairs = torch.tensor(list(permutations(range(24), 2)))
    wanted = (scenes[pairs[:, 0]] == scenes[pairs[:, 1]]).double().mean(0)
    assert torch.allclose(torch.tensor(base_rates(scenes), dtype=torch.double), wanted)


def test_references_are_held_out_and_partners_differ() -> None:
    for seed in (DEVELOP, FINAL):
        world = build_world(seed)
        scenes = world.references.scenes
        assert bool(is_held_out(scenes).all())
        assert bool((world.named != scenes[:, SHAPE]).all())
        assert bool((world.outlines[:, SHAPE] == world.named).all())
        others = [COLOUR, BACKGROUND, PATTERN]
        assert torch.equal(world.outlines[:, others], scenes[:, others])
        assert 0.4 < float((world.outlines[:, SIZE] == scenes[:, SIZE]).float().mean()) < 0.6
        for kind, numbers in world.partners.items():
            partner = scenes[numbers]
            assert bool((partner[:, [COLOUR, PATTERN]] != scenes[:, [COLOUR, PATTERN]]).all())
            assert bool((partner[:, [SHAPE, SIZE]] == scenes[:, [SHAPE, SIZE]]).all()) == (kind == ONE_SHAPE)
        assert torch.equal(world.references.bytes, references(len(scenes), seed).bytes)
    assert not torch.equal(build_world(DEVELOP).references.bytes, build_world(FINAL).references.bytes)


@pytest.mark.parametrize("half", HALVES)
def test_the_ruler_of_halves_reads_drawings(half: str) -> None:
    drawn = references(256, 4)
    pictures, rows = drawn.of(torch.arange(256)), HALVES[half]
    right = regions.told(pictures, rows) == regions.wanted(drawn.scenes)
    shares = right.float().mean(0).tolist()
    noise = regions.told(torch.rand(32, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), rows)
    print(f"\n{half}: fill, background, pattern right {shares}; of noise {float((noise >= 0).float().mean()):.2f}")
    assert min(shares) >= 0.99
    assert bool((noise == -1).all())
    other = regions.told(pictures, HALVES["upper" if half == "lower" else "lower"]) == regions.wanted(
        drawn.scenes.roll(1, 0)
    )
    assert float(other.float().mean()) < 0.5  # it does not agree with what it was not shown


def test_groups_are_all_layers_once() -> None:
    unet = base.build()
    found = [index for group in GROUPS for index in layers_of(unet, [group])]
    print(f"\n{ {group: layers_of(unet, [group]) for group in GROUPS} }")
    assert sorted(found) == [layer.index for layer in unet_layers(unet)]
    assert all(layers_of(unet, [group]) for group in GROUPS)


@torch.no_grad()
def test_masks_share_the_picture_out() -> None:
    """The same picture in both halves is that picture without masks; a mask of zeros is no picture."""
    torch.manual_seed(0)
    unet = base.build().eval()
    for parameter in unet.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 64)
    plain = unet(x, 500, text).sample
    prompts, weights, tokens = install(unet), sites_of(unet).text, torch.randn(2, 4, 64)
    keys_values = {index: (tokens @ k.T, tokens @ v.T) for index, (k, v) in weights.items()}
    masks = half_masks(unet)

    def output(*of_layer: int) -> torch.Tensor:
        prompts.of_layer = {
            index: tuple(ImageKV(k, v, masks[index][half]) for half in of_layer)
            for index, (k, v) in keys_values.items()
        }
        return unet(x, 500, text).sample

    halves = output(0, 1)
    upper = output(0)
    prompts.put(AdapterOutput(keys_values))
    show("both halves", halves, unet(x, 500, text).sample, 1e-5)
    assert float((upper - halves).abs().max()) > 1e-3
    prompts.of_layer = {
        index: (ImageKV(k, v, torch.zeros_like(masks[index][0])),) for index, (k, v) in keys_values.items()
    }
    show("no half", unet(x, 500, text).sample, plain, 1e-5)


def test_findings_are_read_back(tmp_path: Path) -> None:
    found = Findings("A title")
    found.agreements("pictures", {"some": torch.eye(5, dtype=torch.bool)}, {"more": ["1.00"]})
    found.at_least("shape", mean(torch.tensor([1.0, 0.0])), 0.97)
    found.save(tmp_path / "found.json")
    assert read_findings(tmp_path / "found.json") == found
    assert [bar.is_reached for bar in found.bars] == [False]


def test_orders_are_named_once() -> None:
    """A claim has one name for a set of pictures, a name means the same in every claim, and what two ask is one set."""
    claims = [command.in_world(claim, FINAL, 8) for claim in command.CLAIMS]
    orders = [order for claim in claims for order in claim.orders.values()]
    assert all(order.world == FINAL and order.count == 8 for order in orders)
    by_name: dict[str, Order] = {}
    for claim in command.CLAIMS:
        assert len(set(claim.orders.values())) == len(claim.orders), claim.name
        for name, order in claim.orders.items():
            assert by_name.setdefault(name, order) == order, name
    sets = set(by_name.values())
    print(f"\n{len(sets)} sets of {len(by_name)} names, {sum(order.count for order in sets)} pictures in all")
    assert 50 < len(sets) < len(by_name)


class Drawn:
    """In place of a studio: what a perfect model would give, and a judge that is never wrong."""

    world = staticmethod(build_world)

    def made(self, scenes: Tensor, pictures: Tensor) -> Made:
        world = build_world(DEVELOP)
        verdict = Verdict(
            scenes, torch.zeros(len(scenes), dtype=torch.bool), world.references.given.shift[: len(scenes)]
        )
        return Made(Order(len(scenes), halves=ANY_SHAPE), pictures, verdict, world.references.scenes[: len(scenes)])


def test_what_was_asked_for_is_counted_as_right() -> None:
    """Of perfect pictures everything is right; of copies of the reference, all but what was asked to differ."""
    count, drawn = 128, Drawn()
    world = build_world(DEVELOP)
    scenes, rows = world.references.scenes[:count], torch.arange(count)
    pictures, partner = world.references.of(rows), world.partners[ANY_SHAPE][:count]
    copies = drawn.made(scenes, pictures)
    assert bool(copies.right.all())
    assert float(off_by(copies, world.references.given.shift[:count]).max()) == 0
    named = scenes.clone()
    named[:, SHAPE] = world.named[:count]
    whole = together.obeyed(drawn, drawn.made(named, pictures))
    assert bool(whole.all())
    assert together.obeyed(drawn, copies).float().mean(0).tolist() == [0, 1, 1, 1, 1]
    outlined = structure.obeyed(drawn, drawn.made(world.outlines[:count], pictures))
    assert bool(outlined.all())
    assert structure.obeyed(drawn, copies).float().mean(0).tolist()[:4] == [0, 1, 1, 1]
    mixed = torch.cat([pictures[..., : SIDE // 2, :], world.references.of(partner)[..., SIDE // 2 :, :]], 2)
    for name, half in structure.own(drawn, drawn.made(scenes, mixed)).items():
        shares = half.float().mean(0).tolist()
        print(f"\n{name} half of two drawings: fill, background, pattern {shares}")
        assert min(shares) >= 0.97
    fill, _, pattern = structure.own(drawn, copies)["lower"].float().mean(0).tolist()
    assert fill == pattern == 0
    wrong = against_wrong(copies).float().mean(0)
    assert torch.allclose(wrong, torch.tensor(base_rates(scenes)).float(), atol=0.13)


def test_spoiled_halves_are_counted_as_none() -> None:
    """Noise in the lower half: there nothing is told, above it all that was drawn."""
    generator = torch.Generator().manual_seed(0)
    scenes = random_scenes(64, generator)
    pictures = draw(scenes, chance(64, generator))
    upper, lower = slice(0, SIDE // 2), slice(SIDE // 2, SIDE)
    pictures[..., lower, :] = torch.rand(64, 3, SIDE // 2, SIDE, generator=generator)
    assert torch.equal(regions.told(pictures, upper), regions.wanted(scenes))
    assert torch.equal(regions.told(pictures, lower), torch.full((64, 3), -1))


def test_the_card_is_filled_between_its_marks(tmp_path: Path) -> None:
    places, path = Places(weights=tmp_path), tmp_path / "README.md"
    save_file({"one": torch.zeros(3, 4), "two": torch.zeros(5)}, tmp_path / "some.safetensors", {"format": "pt"})
    path.write_text(f"before\n{card.START}\nold\n{card.END}\nafter\n")
    for _ in range(2):
        card.fill(places, [Bar("a bar", "at least 1 %", "2 %", True)], path)
    text = path.read_text()
    print(f"\n{text}")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| some.safetensors | 17 |" in text
    assert text.count("a bar") == 1
    assert "old" not in text
    path.write_text("nothing")
    with pytest.raises(ValueError, match="no place for the figures"):
        card.fill(places, [], path)
