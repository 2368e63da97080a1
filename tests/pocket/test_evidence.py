"""The measures behind docs/evidence.md: intervals, base rates, references, the ruler of halves, masks and groups."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from figures import show

from demo.pocket import base
from demo.pocket.data import references
from demo.pocket.drawing import SIDE
from demo.pocket.evidence import __main__ as command
from demo.pocket.evidence import regions
from demo.pocket.evidence.alone import base_rates
from demo.pocket.evidence.figures import Findings, mean, read_findings
from demo.pocket.evidence.orders import GROUPS, build_world
from demo.pocket.evidence.structure import HALVES
from demo.pocket.evidence.studio import half_masks, layers_of
from demo.pocket.scenes import BACKGROUND, COLOUR, COUNTS, DEVELOP, FINAL, PATTERN, SHAPE, SIZE, is_held_out
from demo.pocket.spoiled import blobs
from ipadapter_core import ImageKV
from trainer.attention import install, text_keys_values, unet_layers


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
        partner = scenes[world.partner]
        assert bool((partner[:, [COLOUR, PATTERN]] != scenes[:, [COLOUR, PATTERN]]).all())
        assert torch.equal(world.references.bytes, references(len(scenes), seed).bytes)
    assert not torch.equal(build_world(DEVELOP).references.bytes, build_world(FINAL).references.bytes)


@pytest.mark.parametrize("half", HALVES)
def test_the_ruler_of_halves_reads_drawings(half: str) -> None:
    drawn = references(256, 4)
    pictures, columns = drawn.of(torch.arange(256)), HALVES[half]
    right = regions.told(pictures, columns) == regions.wanted(drawn.scenes)
    shares = right.float().mean(0).tolist()
    noise = regions.told(torch.rand(32, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), columns)
    print(f"\n{half}: fill, background, pattern right {shares}; of noise {float((noise >= 0).float().mean()):.2f}")
    assert min(shares) >= 0.97  # a small moon has hardly any fill in its right half
    assert bool((noise == -1).all())
    other = regions.told(pictures, HALVES["left" if half == "right" else "right"]) == regions.wanted(drawn.scenes.roll(1, 0))
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
    prompts, weights, tokens = install(unet), text_keys_values(unet), torch.randn(2, 4, 64)
    keys_values = {index: (tokens @ k.T, tokens @ v.T) for index, (k, v) in weights.items()}
    masks = half_masks(unet)

    def output(*of_layer: int) -> torch.Tensor:
        prompts.of_layer = {
            index: tuple(ImageKV(k, v, masks[index][half]) for half in of_layer) for index, (k, v) in keys_values.items()
        }
        return unet(x, 500, text).sample

    halves = output(0, 1)
    left = output(0)
    prompts.set(keys_values)
    show("both halves", halves, unet(x, 500, text).sample, 1e-5)
    assert float((left - halves).abs().max()) > 1e-3
    prompts.of_layer = {
        index: (ImageKV(k, v, torch.zeros_like(masks[index][0])),) for index, (k, v) in keys_values.items()
    }
    show("no half", unet(x, 500, text).sample, plain, 1e-5)


def test_findings_are_read_back_and_orders_are_named_once(tmp_path: Path) -> None:
    found = Findings("A title")
    found.agreements("pictures", {"some": torch.eye(5, dtype=torch.bool)}, {"more": ["1.00"]})
    found.at_least("shape", mean(torch.tensor([1.0, 0.0])), 0.97)
    found.save(tmp_path / "found.json")
    assert read_findings(tmp_path / "found.json") == found
    assert [bar.is_reached for bar in found.bars] == [False]
    claims = [command.in_world(claim, FINAL, 8) for claim in command.CLAIMS]
    orders = [order for claim in claims for order in claim.orders.values()]
    assert all(order.world == FINAL and order.count == 8 for order in orders)
    print(f"\n{sum(order.count for claim in command.CLAIMS for order in set(claim.orders.values()))} pictures in all")


def test_spoiled_halves_are_counted_as_none() -> None:
    pictures, _ = blobs(64, torch.Generator().manual_seed(0), False)
    soft = torch.nn.functional.avg_pool2d(pictures, 16).repeat_interleave(16, 2).repeat_interleave(16, 3)
    told = regions.told(soft, slice(0, SIDE))
    assert told.shape == (64, 3)
    assert int(told.max()) < max(COUNTS)
