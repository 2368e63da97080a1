"""The rival of docs/evaluation.md: what a shuffle keeps of a picture, the stage at a tiny size, and its pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel
from torch import Tensor

from pocket.places import Places
from pocket.table import rival
from pocket.table.__main__ import SPLIT, write_coco
from pocket.training import base, control, data, judge, shuffle
from pocket.world.drawing import colours
from pocket.world.scenes import SHAPE
from trainer.evaluation.coco import read_coco
from trainer.evaluation.systems import read_folder

COUNT = 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """A few steps of the stage, at a rate that shows in them."""
    places = Places(work=tmp_path_factory.mktemp("shuffle"))
    few = dataclasses.replace(shuffle.RECIPE, steps=8, batch=8, rate=5e-3, warmup=1, average=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "COUNT", COUNT)
        patch.setattr(shuffle, "RECIPE", few)
        shuffle.train(places)
    return places


def fill_share(pictures: Tensor, fill: Tensor, ground: Tensor) -> Tensor:
    """[N]: of the pixels, how many are nearer to the fill than to the background in either of its tones."""
    far = [(pictures - colour).square().sum(1) for colour in (fill, ground, 0.62 * ground)]
    return (far[0] < torch.minimum(far[1], far[2])).float().mean((1, 2))


def test_a_shuffle_keeps_colours_and_not_the_layout() -> None:
    found = data.references(128, 5)
    pictures = found.of(torch.arange(128))
    moved = shuffle.shuffled(pictures, shuffle.drawn_nodes(128, torch.Generator().manual_seed(0)))
    assert (moved.amin((2, 3)) >= pictures.amin((2, 3)) - 1e-5).all()
    assert (moved.amax((2, 3)) <= pictures.amax((2, 3)) + 1e-5).all()
    before, after = (fill_share(one, *colours(found.scenes, found.given)) for one in (pictures, moved))
    ruler, wanted = judge.load(Places()), found.scenes[:, SHAPE]
    told = [float((ruler.verdict(one).attributes[:, SHAPE] == wanted).float().mean()) for one in (pictures, moved)]
    without = float((after < 0.01).float().mean())
    print(f"\nfill in {float(before.mean()):.3f} of the pixels, shuffled in {float(after.mean()):.3f}, gone in "
          f"{without:.3f} of the pictures; shape told in {told}")  # fmt: skip
    assert abs(float((before - after).mean())) < 0.1
    assert without < 0.05
    assert told[0] > 0.95 and told[1] < 0.15


def test_flows_differ_and_are_their_nodes_alone() -> None:
    pictures = data.references(1, 5).of(torch.zeros(2, dtype=torch.long))
    nodes = shuffle.drawn_nodes(2, torch.Generator().manual_seed(0))
    one, other = shuffle.shuffled(pictures, nodes)
    assert (one - other).abs().mean() > 0.05
    stretched = shuffle.shuffled(pictures, 0.5 * nodes + 0.25)  # of nodes neither place nor size counts
    torch.testing.assert_close(stretched[0], one, atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_stage_trains_a_controlnet_that_sees_its_condition(trained: Places) -> None:
    """A new ControlNet changes nothing; what is trained, saved and read again does, by what it is shown."""
    found, unet, generator = data.references(4, 5), base.load(trained), torch.Generator().manual_seed(0)
    pictures = found.of(torch.arange(4))
    conditions = shuffle.shuffled(pictures, shuffle.drawn_nodes(4, generator))
    noise, time = torch.randn(4, 4, 8, 8, generator=generator), torch.full((4,), 900)
    text = base.text_states(trained, [""]).expand(4, -1, -1)

    def predicted(model: ControlNetModel, shown: Tensor, strength: float = 1.0) -> Tensor:
        return control.controlled(unet, model, noise, time, text, shown, strength)

    new, model = control.build(unet), shuffle.load(trained)
    alone = predicted(model, conditions, 0.0)
    torch.testing.assert_close(predicted(new, conditions), alone)
    own, others = predicted(model, conditions), predicted(model, conditions.roll(1, 0))
    moved, told = float((own - alone).abs().mean()), float((own - others).abs().mean())
    print(f"\nnoise moved by {moved:.4f}, by another condition by {told:.1e}")
    assert moved > 1e-3
    assert told > 1e-6  # 0 where the condition is not seen
    assert (trained.work / "shuffle.pt").exists() and not trained.shuffle.is_relative_to(trained.weights)


def test_the_rivals_pictures_are_a_system_of_the_table(trained: Places, tmp_path: Path) -> None:
    found = data.references(3, 5)
    references = read_coco(write_coco(found, tmp_path / "coco"), SPLIT)

    def write() -> Path:
        return rival.write_pictures(trained, found, references.items, 2, 2, 0, "cpu", tmp_path)

    folder = write()
    assert read_folder(rival.NAME, folder, references).samples == 2
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(set(before.values())) == 6
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    gone = folder / f"{references.items[1].key}_1.png"
    gone.unlink()
    assert write() == folder
    assert {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != times[path.name]} == {gone.name}
    assert before.keys() == {path.name for path in folder.iterdir()}
