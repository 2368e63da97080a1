"""The trained model does what it should, on references that no training has seen, with fixed seeds.

Floors are well below what docs/evidence.md measures and well above chance, which is printed beside them.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from ipadapter_core import write_safetensors
from pocket.evidence import structure, together
from pocket.evidence.alone import against_wrong, base_rates
from pocket.evidence.fine import off_by
from pocket.evidence.orders import BESIDE, FINE, GLOBAL, ONE_SHAPE, Order
from pocket.evidence.studio import Made, Studio
from pocket.places import Places
from pocket.training import judge
from pocket.training.adapters import preset
from pocket.training.data import references
from pocket.world.scenes import ATTRIBUTES, captions
from pocket.world.settings import HALF_WEIGHT, SILHOUETTE_WEIGHT, TEXT_WEIGHT
from trainer.commands.cache import build_cache
from trainer.run import checkpoint, loop
from trainer.run import folder as run
from trainer.settings.config import Config
from trainer.settings.load import load_config
from trainer.step.adapter import new_adapter

pytestmark = pytest.mark.slow

WORLD, COUNT = 4, 64
FLOORS = {"shape": 0.85, "colour": 0.90, "background": 0.90, "pattern": 0.75, "size": 0.80}
RULER = 0.98  # of the judge's attributes; its bar of 99.5 % is held on docs/evidence.md
ADAPTERS = (GLOBAL, FINE)


def shares(right: Tensor) -> dict[str, float]:
    return {name: round(float(one.float().mean()), 3) for name, one in zip(ATTRIBUTES, right.unbind(1), strict=True)}


def tell(what: str, right: Tensor) -> dict[str, float]:
    found = shares(right)
    print(f"{what}: " + ", ".join(f"{name} {share:.3f}" for name, share in found.items()))
    return found


def made(studio: Studio, adapter: str = "", count: int = COUNT, **values: object) -> Made:
    return studio.made(Order(count, adapter, world=WORLD, **values))  # type: ignore[arg-type]


def beside(studio: Studio, count: int, **values: Any) -> Made:
    return studio.made(dataclasses.replace(BESIDE, count=count, world=WORLD, **values))


def test_the_ruler_reads_every_attribute(studio: Studio) -> None:
    found = judge.report(studio.places)
    print(f"\n{found}")
    for kind in ("drawn", "autoencoded"):
        assert min(found[kind].values()) >= RULER  # type: ignore[attr-defined]
    assert min(found["spoiled, told as none"].values()) > 0.7  # type: ignore[attr-defined]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_image_prompt_alone(adapter: str, studio: Studio) -> None:
    one, none = made(studio, adapter), made(studio)
    print()
    found, without = tell(adapter, one.right), tell("no adapter", none.right)
    wrong, chance = tell("the wrong reference", against_wrong(one)), base_rates(one.scenes)
    print("chance: " + ", ".join(f"{rate:.3f}" for rate in chance))
    for name, rate in zip(ATTRIBUTES, chance, strict=True):
        assert found[name] >= FLOORS[name]
        assert max(without[name], wrong[name]) <= rate + 0.22  # three deviations of 64 at one half
        assert found[name] - max(without[name], wrong[name]) > 0.15
    assert float(one.right.all(1).float().mean()) > 0.5


def test_the_fine_grained_adapter_knows_the_place(studio: Studio) -> None:
    positions = studio.world(WORLD).references.given.shift[:COUNT]
    off = {adapter: float(off_by(made(studio, adapter), positions).mean()) for adapter in ADAPTERS}
    print(f"\nposition off by {off}")
    assert off[FINE] < off[GLOBAL]


def test_text_and_picture_are_both_obeyed(studio: Studio) -> None:
    one = beside(studio, COUNT, weight=TEXT_WEIGHT, names_shape=True)
    none = made(studio, GLOBAL, weight=0.0, names_shape=True, count=32)
    print()
    found = tell("text and picture", together.obeyed(studio, one))
    text = tell("text alone", together.obeyed(studio, none))
    assert found["shape"] >= 0.85
    assert min(found["colour"], found["background"]) >= 0.85
    assert found["pattern"] >= 0.65
    assert text["shape"] >= 0.85
    assert max(text["colour"], text["background"]) < 0.5


def test_the_adapter_works_on_another_look(studio: Studio) -> None:
    one = made(studio, GLOBAL, is_sticker=True)
    kept = float(one.verdict.is_sticker.float().mean())
    print(f"\nstickers {kept:.3f}")
    found = tell("on stickers", one.right)
    assert kept >= 0.8
    assert all(found[name] >= floor - 0.1 for name, floor in FLOORS.items())
    assert not bool(made(studio, GLOBAL).verdict.is_sticker.float().mean() > 0.1)


def test_a_controlnet_gives_the_shape(studio: Studio) -> None:
    one = beside(studio, 32, weight=SILHOUETTE_WEIGHT, has_silhouette=True)
    print()
    found = tell("silhouette and picture", structure.obeyed(studio, one))
    assert found["shape"] >= 0.8
    assert min(found["colour"], found["background"]) >= 0.85


def test_two_references_keep_to_their_halves(studio: Studio) -> None:
    one = made(studio, FINE, weight=HALF_WEIGHT, halves=ONE_SHAPE, count=32)
    print()
    for half, right in structure.own(studio, one).items():
        fill, _, pattern = right.float().mean(0).tolist()
        print(f"{half}: fill {fill:.3f}, pattern {pattern:.3f}")
        assert min(fill, pattern) >= 0.7


def write_data(folder: Path, count: int = 512) -> Path:
    """Pictures and captions for a short training."""
    data, rows = references(count, 5, held_out=False), []
    folder.mkdir()
    for number in range(count):
        Image.fromarray(data.bytes[number].permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
        rows.append({"image_file": f"{number}.png", "text": captions(data.scenes[number])})
    (folder / "train.json").write_text(json.dumps(rows))
    return folder / "train.json"


def short_training(studio: Studio, folder: Path, steps: int) -> Config:
    settings = {
        "model.base": studio.places.base, "model.encoder": studio.places.encoder, "data.cache": folder / "cache",
        "data.source": write_data(folder / "data"), "run.folder": folder / "run",
    }  # fmt: skip
    numbers = {"run.steps": steps, "run.save_every_steps": steps, "run.validate_every_steps": 0, "data.held_out": 0,
               "run.sample_every_steps": 0, "optimiser.warmup_steps": 10, "optimiser.ema": 0, "data.workers": 0,
               "run.trackers": []}  # fmt: skip
    words = [f"{key}={json.dumps(str(value))}" for key, value in settings.items()]
    return load_config(preset("pocket"), [*words, *(f"{key}={value}" for key, value in numbers.items())])


def test_a_short_training_raises_agreement(studio: Studio, tmp_path: Path) -> None:
    """A few dozen steps of `python -m trainer` from the start, with the shipped preset."""
    config = short_training(studio, tmp_path, steps=60)
    build_cache(config)
    place = run.start(config)
    loop.train(config, place)
    newest = checkpoint.latest(place)
    assert newest is not None
    places = Places(weights=tmp_path / "weights", work=tmp_path / "work")
    places.adapters.mkdir(parents=True)
    for name in ("base", "clip_vision", "judge.safetensors"):
        (places.weights / name).symlink_to(studio.places.weights / name)
    (places.adapters / "after.safetensors").symlink_to(newest / checkpoint.ADAPTER)
    start = new_adapter(config, studio.frozen.base.sites, studio.frozen.encoder_facts)
    write_safetensors(places.adapters / "before.safetensors", start.state_dict(), {})
    mine = Studio(places)
    print()
    before = tell("before", made(mine, "before", count=32).right)
    after = tell("after 60 steps", made(mine, "after", count=32).right)
    gain = sum(after.values()) / len(after) - sum(before.values()) / len(before)
    print(f"mean agreement raised by {gain:.3f}")
    assert gain > 0.15
    assert after["background"] > before["background"] + 0.2
