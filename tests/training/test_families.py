"""Adapters for faces: crops as the condition, full-face, FaceID and FaceID plus with identities and a LoRA."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ipadapter_core import Given, IPAdapter, detect, lora_of, read_adapter, resolve_variant, write_safetensors
from tests.support import oracles, published, runs, tiny_models
from tests.support.face_data import FAMILIES, WITH_IDENTITY, face_config
from tests.support.figures import relative, show
from trainer.__main__ import main, parser
from trainer.base.files import layout_folder, read_unet_config
from trainer.base.frozen import Frozen
from trainer.base.sites import sites_of
from trainer.commands.cache import build_cache
from trainer.commands.plan import describe, make_plan
from trainer.commands.sample import model_and_adapter
from trainer.run import checkpoint, loop
from trainer.run import folder as run
from trainer.settings.config import Config, ModelConfig
from trainer.settings.load import load_config
from trainer.step.adapter import NO_ENCODER, adapter_output, load_adapter, new_adapter
from trainer.step.shape import encoder_shape
from trainer.step.transport import TrainedAdapter

pytestmark = pytest.mark.slow

BAR = 1e-5
TIME = torch.tensor(500)


def train(config: Config) -> Path:
    place = run.start(config)
    assert loop.train(config, place) == config.run.steps
    return place


def adapter_file(place: Path) -> Path:
    newest = checkpoint.latest(place)
    assert newest is not None
    return newest / checkpoint.ADAPTER


def random_inputs(adapter: IPAdapter) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Noisy latents, text states, image features, identities of length one."""
    generator, spec = torch.Generator().manual_seed(1), adapter.spec
    x, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, tiny_models.CONTEXT, generator=generator)
    features = torch.randn(2, 17, spec.feature_dim, generator=generator) if spec.feature else None
    identities = F.normalize(torch.randn(2, 512, generator=generator), dim=-1) if spec.identity else None
    return x, text, features, identities


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_reach_every_trained_tensor(name: str, checkpointing: bool, tmp_path: Path) -> None:
    config = face_config(tmp_path, name, run={"gradient_checkpointing": checkpointing})
    frozen = Frozen(config.model)
    trained = TrainedAdapter(new_adapter(config, frozen.base.sites, encoder_shape(config)))
    for key, parameter in trained.adapter.named_parameters():
        if key.endswith("_lora.up.weight"):
            assert not parameter.any()
            torch.nn.init.normal_(parameter, std=0.1)  # from zero, no gradient would reach the other half yet
    x, text, features, identities = random_inputs(trained.adapter)
    keys_values, lora = trained.by_layer(trained(features, identities))
    prediction = runs.predict(frozen, config, x, TIME, text, keys_values, lora)
    prediction.square().mean().backward()
    moved = {key: p.grad is not None and bool(p.grad.any()) for key, p in trained.adapter.named_parameters()}
    print(f"\n{name}: gradients for {sum(moved.values())} of {len(moved)} tensors, {2 * len(lora)} of them the LoRA's")
    assert all(moved.values()), [key for key, has in moved.items() if not has]
    layers = 2 * len(trained.adapter.spec.layers)
    assert len(lora) == (4 * layers if name in WITH_IDENTITY else 0)
    assert all(parameter.grad is None for parameter in frozen.base.unet.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_an_interrupted_run_ends_bit_equal(name: str, tmp_path: Path) -> None:
    config = face_config(
        tmp_path, name, optimiser={"ema": 0.9}, data={"held_out": 2},
        run={"validate_every_steps": 4, "sample_every_steps": 4, "sample_steps": 2, "sample_pictures": 2},
    )  # fmt: skip
    whole = train(config)
    half = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "half"), steps=2))
    place = train(half)
    loop.train(run.resume(place, ["run.steps=4"]), place)
    one, other = runs.final_state(whole), runs.final_state(place)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert runs.losses(whole) == runs.losses(place)
    sheets = [folder / "samples" / "step-00000004.png" for folder in (whole, place)]
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    print(f"\n{name}: {len(one)} tensors, their losses and their pictures equal")


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_with_and_without_a_cache_are_equal(name: str, tmp_path: Path) -> None:
    config = face_config(tmp_path, name)
    cached = face_config(tmp_path, name, data={"cache": str(tmp_path / "cache")}, run={"folder": str(tmp_path / "two")})
    build_cache(cached)
    parts = {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert ("identities" in parts) == (name in WITH_IDENTITY)
    assert ("penultimate" in parts) == (name != "FaceID")
    plain, found = runs.losses(train(config)), runs.losses(train(cached))
    largest = max(abs(plain[step] - found[step]) / plain[step] for step in plain)
    print(f"\n{name}: largest relative difference of a loss {largest:.1e}")
    assert plain.keys() == found.keys()
    assert largest <= BAR


def test_a_cache_of_other_identities_is_refused(tmp_path: Path) -> None:
    config = face_config(tmp_path, "FaceID", data={"cache": str(tmp_path / "cache")})
    with pytest.raises(ValueError, match="has no samples: run python -m trainer cache"):
        train(config)
    build_cache(config)
    source = Path(config.data.source)
    source.write_text(source.read_text().replace('"1.npy"', '"4.npy"'))
    with pytest.raises(ValueError, match="does not fit this training: of its samples the data is") as found:
        loop.train(config, Path(config.run.folder))
    print(f"\n{found.value}")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_file_loads_and_predicts_the_same_elsewhere(name: str, tmp_path: Path) -> None:
    config = face_config(tmp_path, name, optimiser={"learning_rate": 3e-2})
    out = tmp_path / "adapter.safetensors"
    assert main(["export", str(train(config)), str(out)]) == 0
    file = read_adapter(out)
    spec = resolve_variant(detect(file.tensors), file.metadata)
    assert (spec.family, spec.has_lora) == (config.adapter.family, name in WITH_IDENTITY)
    assert file.metadata["family"] == spec.family
    assert spec.shortcut == (name == "FaceID plus v2") and not spec.zero_features
    assert len(lora_of(file.tensors)) == (8 * len(spec.layers) if name in WITH_IDENTITY else 0)

    frozen = Frozen(config.model)
    adapter = load_adapter(file.tensors, frozen.base.sites, metadata=file.metadata)
    x, text, features, identities = random_inputs(adapter)
    with torch.no_grad():
        keys_values, lora = adapter_output(adapter, Given(features, identities))
        ours = runs.predict(frozen, config, x, TIME, text, keys_values, lora)
        without = runs.predict(frozen, config, x, TIME, text, keys_values)
        alone = runs.predict(frozen, config, x, TIME, text, {}, lora)
        tokens = adapter.image_tokens(Given(features, identities))
    reference = UNet2DConditionModel.from_pretrained(config.model.base, subfolder="unet")
    theirs = oracles.diffusers_tokens(file.tensors, features, identities, name == "FaceID plus v2")
    show(f"\n{name}, tokens by diffusers", tokens, theirs, BAR)
    is_plus = features is not None and identities is not None
    first = identities if is_plus else oracles.as_one_input(file.tensors, features, identities)
    assert first is not None
    extra: dict[str, Any] = {"clip": features, "shortcut": name == "FaceID plus v2"} if is_plus else {}
    with (
        oracles.merged(reference, file.tensors),
        oracles.diffusers_loader(reference, [file.tensors], [1.0]) as predict,
    ):
        by_diffusers = predict(x, TIME, text, [first[:, None]], **extra)
    with oracles.package(reference, file.tensors, 1.0, tokens=lambda _: theirs) as predict:
        by_package = predict(x, TIME, text, None)
    show("prediction by diffusers, LoRA merged by hand", ours, by_diffusers, BAR)
    show("prediction by the package's layers, with its LoRA", ours, by_package, BAR)
    effect = relative(without, ours)
    print(f"effect of the LoRA {effect:.1e}, of the image tokens {relative(alone, ours):.1e}")
    assert relative(alone, ours) > 1e-2
    assert (effect > 1e-2) == (name in WITH_IDENTITY)


def test_going_on_from_a_file_keeps_its_weights(tmp_path: Path) -> None:
    config = face_config(tmp_path, "FaceID plus v1")
    path = adapter_file(train(config))
    again = {"start_from": str(path)}
    still = face_config(
        tmp_path, "FaceID plus v1", adapter=again, optimiser={"learning_rate": 1e-30},
        run={"steps": 1, "folder": str(tmp_path / "still")},
    )  # fmt: skip
    before, after = read_adapter(path).tensors, read_adapter(adapter_file(train(still))).tensors
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[key], value, rtol=0, atol=1e-25) for key, value in before.items())
    frozen = Frozen(config.model)
    for change, message in (({"shortcut": True}, "adapter.shortcut"), ({"lora_rank": 4}, "adapter.lora_rank")):
        other = face_config(tmp_path, "FaceID plus v1", adapter=again | change)
        with pytest.raises(ValueError, match=f"change {message}") as found:
            new_adapter(other, frozen.base.sites, frozen.encoder_facts)
        print(f"\n{found.value}")


@pytest.mark.parametrize("name", ["FaceID", "FaceID plus v2"])
def test_pictures_of_a_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = face_config(tmp_path, name, optimiser={"learning_rate": 3e-2})
    place, faces = train(config), tmp_path / "faces"
    options = ["--steps", "2", "--number", "1", "--resolution", "64"]
    base = ["sample", str(place), "--image", str(faces / "0.png"), *options]
    for number, identity in ((0, "1.npy"), (1, "2.safetensors"), (2, "1.npy")):
        words = [*base, "--identity", str(faces / identity), "--out", str(tmp_path / f"{number}.png")]
        assert main(words) == 0
    sheets = [Image.open(tmp_path / f"{number}.png").tobytes() for number in range(3)]
    assert sheets[0] == sheets[2] != sheets[1]
    assert main(base) == 1
    assert "reads the identity of a face with each picture, got 0 for 1" in capsys.readouterr().err
    assert main([*base, "--identity", str(faces / "0.png")]) == 1
    message = capsys.readouterr().err
    print(f"\n{message}")
    assert "0.png is no identity" in message


def test_the_word_for_no_encoder_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "faceid.safetensors"
    for name, encoder in ((NO_ENCODER, ModelConfig().encoder), ("ViT-L-14/openai", "ViT-L-14/openai")):
        write_safetensors(path, {"image_proj.proj.0.weight": torch.zeros(2, 2)}, {"encoder": name})
        model, _, _ = model_and_adapter(parser().parse_args(["sample", str(path), "--image", "a.png", "--base", "b"]))
        assert model.encoder == encoder


@pytest.mark.parametrize("parallel", ["ddp", "zero2", "zero3"])
def test_two_processes_train_the_lora_too(parallel: str, tmp_path: Path) -> None:
    config = face_config(tmp_path, "FaceID plus v2", run={"batch_size": 2})
    one = train(config)
    changes = {"folder": str(tmp_path / "two"), "processes": 2, "batch_size": 1, "parallel": parallel}
    two = dataclasses.replace(config, run=dataclasses.replace(config.run, **changes, steps=2))
    runs.run("train", runs.write_config(two, tmp_path / "two.toml"))
    runs.run("resume", tmp_path / "two", "--set", "run.steps=4")
    first, second = runs.losses(one), runs.losses(tmp_path / "two")
    largest = max(abs(first[step] - second[step]) / first[step] for step in first)
    print(f"\n{parallel} on two processes: largest relative difference of a loss {largest:.1e}")
    assert first.keys() == second.keys()
    assert largest <= BAR


PRESETS = {
    "sd15_full_face": (published.full_face(), 257),
    "sd15_faceid": (published.face_id(768), 4),
    "sd15_faceid_plus": (published.face_id_plus(768), 4),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_published_shapes(preset: str) -> None:
    """Every tensor's name and shape is the published file's, whose shapes come from the package's constructors."""
    layout, tokens = PRESETS[preset]
    config = load_config(preset)
    plan = make_plan(config)
    print("\n" + describe(config, plan))
    assert plan.trained == sum(value.numel() for value in layout.values())
    assert plan.lora == sum(value.numel() for key, value in layout.items() if "_lora." in key)
    assert (plan.tokens, plan.layers, plan.base) == (tokens, 16, "SD1.5")
    assert f"{plan.trained:,}" in describe(config, plan)
    with torch.device("meta"):
        sites = sites_of(UNet2DConditionModel.from_config(read_unet_config(layout_folder("sd15"))))
        adapter = new_adapter(config, sites, encoder_shape(config))
    assert {key: value.shape for key, value in adapter.named_parameters()} == {k: v.shape for k, v in layout.items()}
    found = detect(dict(adapter.named_parameters()))
    assert dataclasses.replace(found, shortcut=adapter.spec.shortcut) == adapter.spec
