"""The simple adapter of the paper (section 4.4.2): tokens appended to the text's, only the projection trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ipadapter_core import Given, IPAdapter, detect, read_adapter
from tests.support import runs, tiny_models
from tests.support.figures import relative, show
from trainer.__main__ import main
from trainer.base.frozen import Frozen
from trainer.commands.plan import describe, make_plan
from trainer.run import checkpoint, loop
from trainer.run import folder as run
from trainer.settings.config import Config, fixed_values
from trainer.step.adapter import load_adapter, new_adapter
from trainer.step.transport import TrainedAdapter

pytestmark = pytest.mark.slow

FAMILIES = ("base", "plus")


def appended(folder: Path, family: str = "base", **sections: dict[str, Any]) -> Config:
    return runs.tiny_config(folder, adapter={"family": family, "attention": "appended"}, **sections)


def random_inputs(adapter: IPAdapter) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, text states, image features."""
    generator = torch.Generator().manual_seed(1)
    spec = adapter.spec
    size = (2, spec.feature_dim) if spec.feature == "pooled" else (2, 17, spec.feature_dim)
    text = torch.randn(2, 77, tiny_models.CONTEXT, generator=generator)
    return torch.randn(2, 4, 8, 8, generator=generator), text, torch.randn(size, generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_stock_unet_on_longer_text(family: str, tmp_path: Path) -> None:
    """The oracle knows nothing of adapters: diffusers' own attention, with the tokens as more words."""
    config = appended(tmp_path, family)
    frozen = Frozen(config.model)
    adapter = new_adapter(config, frozen.base.sites, frozen.encoder_facts)
    x, text, features = random_inputs(adapter)
    time = torch.tensor(500)
    stock = UNet2DConditionModel.from_pretrained(config.model.base, subfolder="unet")
    with torch.no_grad():
        tokens = adapter.image_tokens(Given(features))
        keys_values = adapter.keys_values(tokens)
        ours = runs.predict(frozen, config, x, time, text, keys_values)
        show(family, ours, stock(x, time, encoder_hidden_states=torch.cat([text, tokens], 1)).sample, 1e-6)
        other = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, attention="decoupled"))
        decoupled = runs.predict(frozen, other, x, time, text, keys_values)
    print(f"{family}: decoupled attention differs by {relative(decoupled, ours):.1e}")
    assert relative(decoupled, ours) > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_projection_is_trained(family: str, tmp_path: Path) -> None:
    config = appended(tmp_path, family)
    frozen = Frozen(config.model)
    trained = TrainedAdapter(new_adapter(config, frozen.base.sites, frozen.encoder_facts))
    x, text, features = random_inputs(trained.adapter)
    keys_values, _ = trained.by_layer(trained(features))
    time = torch.tensor(500)
    prediction = runs.predict(frozen, config, x, time, text, keys_values)
    prediction.square().mean().backward()
    moved = {name: p.grad is not None and bool(p.grad.any()) for name, p in trained.adapter.named_parameters()}
    print(f"\n{family}: gradients for {sum(moved.values())} of {len(moved)} tensors")
    assert {name for name, has in moved.items() if has} == {name for name in moved if name.startswith("image_proj.")}
    assert all(parameter.grad is None for parameter in frozen.base.unet.parameters())


def test_plan_counts_the_projection_alone(tmp_path: Path) -> None:
    config = appended(tmp_path)
    plan, whole = make_plan(config), make_plan(runs.tiny_config(tmp_path))
    text = describe(config, plan)
    print("\n" + text)
    assert plan.trained == plan.projection == whole.projection < whole.trained
    assert "appended attention" in text


def test_resume_is_exact_and_the_file_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = appended(tmp_path, optimiser={"ema": 0.9})
    whole = run.start(config)
    loop.train(config, whole)
    half = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "half"), steps=4))
    place = run.start(half)
    loop.train(half, place)
    loop.train(run.resume(place, ["run.steps=8"]), place)
    one, other = runs.final_state(whole), runs.final_state(place)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert one.keys() == other.keys()

    newest = checkpoint.latest(whole)
    assert newest is not None
    file = read_adapter(newest / checkpoint.ADAPTER)
    assert all(key.startswith("image_proj.") for key in file.tensors)
    assert file.metadata["attention"] == "appended"
    with pytest.raises(ValueError, match="simple adapter") as found:
        detect(file.tensors)
    print(f"\n{len(one)} tensors equal; {found.value}")

    out, small = tmp_path / "sampled.png", tmp_path / "small.safetensors"
    assert main(["export", str(whole), str(small), "--half"]) == 0
    assert "appended attention" in capsys.readouterr().out
    picture = str(tmp_path / "data" / "0.png")
    options = ["--image", picture, "--steps", "2", "--number", "1", "--resolution", "64"]
    assert main(["sample", str(whole), *options, "--out", str(out)]) == 0
    model = ["--base", config.model.base, "--encoder", config.model.encoder]
    assert main(["sample", str(small), *options, *model, "--out", str(tmp_path / "small.png")]) == 0
    with Image.open(out) as large, Image.open(tmp_path / "small.png") as other_sheet:
        assert large.size == other_sheet.size == (128, 64)

    frozen = Frozen(config.model)
    again = load_adapter(file.tensors, frozen.base.sites)
    assert torch.equal(again.image_proj.proj.weight, one["average.image_proj.proj.weight"])
    wrong = dataclasses.replace(config.adapter, attention="decoupled", start_from=str(newest / checkpoint.ADAPTER))
    with pytest.raises(ValueError, match=r"change adapter\.attention"):
        new_adapter(dataclasses.replace(config, adapter=wrong), frozen.base.sites, frozen.encoder_facts)


def test_two_processes_with_zero(tmp_path: Path) -> None:
    config = appended(tmp_path, run={"steps": 4})
    one = run.start(config)
    loop.train(config, one)
    changes = {"folder": str(tmp_path / "two"), "processes": 2, "batch_size": 2, "parallel": "zero2"}
    two = dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))
    runs.run("train", runs.write_config(two, tmp_path / "two.toml"))
    first, second = runs.losses(one), runs.losses(tmp_path / "two")
    largest = max(abs(first[step] - second[step]) / first[step] for step in first)
    print(f"\nZeRO-2 on two processes: largest relative difference of a loss {largest:.1e}")
    assert first.keys() == second.keys()
    assert largest <= 1e-5


def test_runs_from_before_the_option_go_on(tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"steps": 2, "save_every_steps": 2})
    place = run.start(config)
    loop.train(config, place)
    newest = checkpoint.latest(place)
    assert newest is not None
    settings = json.loads((newest / checkpoint.SETTINGS).read_text())
    del settings["fixed"]["adapter.attention"], settings["sum"]  # neither was there
    (newest / checkpoint.SETTINGS).write_text(json.dumps(settings))
    assert checkpoint.read(newest, fixed_values(config)).step == 2
    other = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, attention="appended"))
    with pytest.raises(ValueError, match=r"its adapter\.attention is 'decoupled'"):
        checkpoint.read(newest, fixed_values(other))
