"""What the trainer writes loads in diffusers, in the reference's package and in the nodes, and predicts the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ipadapter_core import Given, base_name, build_adapter, detect, read_adapter
from tests.support import oracles, runs, tiny_models
from tests.support.face_data import face_config
from trainer.base.frozen import Frozen
from trainer.commands.export import export
from trainer.run import folder as run
from trainer.run import loop
from trainer.settings.config import Config

pytestmark = pytest.mark.slow

BAR = 1e-5


def relative(ours: Tensor, reference: Tensor) -> float:
    """max |difference| / max |reference|."""
    return float((ours - reference).abs().max() / reference.abs().max())


def trained(folder: Path, family: str, base: Path | None = None, encoder: Path | None = None) -> tuple[Config, Path]:
    """A few steps of a real training, and the file that `export` makes of it."""
    places = {"model": {"base": str(base), "encoder": str(encoder)}} if base else {}
    config = runs.tiny_config(
        folder, run={"steps": 3, "batch_size": 2}, adapter={"family": family, "licence": "CC0-1.0"}, **places
    )
    runs.run("train", runs.write_config(config, folder / "config.toml"))
    out = folder / "adapter.safetensors"
    assert str(out) in runs.run("export", config.run.folder, out)
    return config, out


@pytest.mark.parametrize("family", ["base", "plus"])
@torch.inference_mode()
def test_diffusers_and_the_package_predict_as_the_trainer(family: str, tmp_path: Path) -> None:
    config, path = trained(tmp_path, family)
    file = read_adapter(path)
    frozen = Frozen(config.model)
    adapter = build_adapter(file.tensors)
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, tiny_models.CONTEXT, generator=generator)
    size = (2, 17, adapter.spec.feature_dim) if family == "plus" else (2, adapter.spec.feature_dim)
    features, t = torch.randn(size, generator=generator), torch.tensor(500)

    keys_values = adapter.keys_values(adapter.image_tokens(Given(features)))
    ours = runs.predict(frozen, config, x, t, text, keys_values)
    reference = UNet2DConditionModel.from_pretrained(config.model.base, subfolder="unet")
    plain = reference(x, t, encoder_hidden_states=text).sample
    with oracles.package(reference, file.tensors, 1.0) as predict:
        by_package = relative(ours, predict(x, t, text, features))
    with oracles.diffusers_loader(reference, [file.tensors], [1.0]) as predict:
        by_diffusers = relative(ours, predict(x, t, text, [features[:, None]]))
    print(
        f"\n{family}: package {by_package:.1e}, diffusers {by_diffusers:.1e}, "
        f"effect of the adapter {relative(plain, ours):.1e}"
    )
    assert by_package <= BAR
    assert by_diffusers <= BAR
    assert relative(plain, ours) > 1e-3


def test_metadata_says_what_the_adapter_needs(tmp_path: Path) -> None:
    config, path = trained(tmp_path, "base")
    file = read_adapter(path)
    spec = detect(file.tensors)
    wanted = {
        "family": "base", "base": base_name(spec), "encoder": "encoder", "encoder_width": "24", "tokens": "4",
        "step": "3", "resolution": "64", "licence": "CC0-1.0", "config": config.hash,
    }  # fmt: skip
    print("\n" + json.dumps(file.metadata, indent=1))
    assert wanted.items() <= file.metadata.items()


@pytest.mark.comfy
@pytest.mark.parametrize("family", ["base", "plus"])
def test_the_nodes_predict_as_diffusers_and_the_package(family: str, tmp_path: Path) -> None:
    from tests.support import (
        host,
        models,  # ComfyUI's and diffusers' model of the same weights
    )

    base = tiny_models.write_base(tmp_path / "base32", context=768, unet=models.diffusers_unet("SD15", 32))
    encoder = tiny_models.write_encoder(tmp_path / "encoder_h", width=1280, embed_dim=1024)
    _, path = trained(tmp_path, family, base, encoder)
    adapter = host.part("nodes.models").load_adapter(path)
    model, unet, prompt = models.comfy_model("SD15", 32), models.diffusers_unet("SD15", 32), models.Features.random()
    with models.Calls(model) as calls:
        models.sample(models.apply(model, adapter, prompt, 1.0), models.text(5), models.text(0), steps=1, size=(8, 8))
    (call,) = calls
    name = "pooled" if family == "base" else "penultimate"
    given = torch.cat([prompt.features(name) if role == 0 else prompt.unconditional(name) for role in call["roles"]])
    inputs: Any = (call["x"], call["t"], call["context"])
    tensors = read_adapter(path).tensors
    with oracles.package(unet, tensors, 1.0) as predict:
        by_package = relative(call["output"], predict(*inputs, given))
    with oracles.diffusers_loader(unet, [tensors], [1.0]) as predict:
        by_diffusers = relative(call["output"], predict(*inputs, [given[:, None]]))
    print(f"\n{family} in ComfyUI: package {by_package:.1e}, diffusers {by_diffusers:.1e}")
    assert by_package <= BAR
    assert by_diffusers <= BAR


@pytest.mark.comfy
@pytest.mark.parametrize("name", ["full-face", "FaceID", "FaceID plus v1", "FaceID plus v2"])
def test_the_nodes_run_what_was_trained_on_faces(name: str, tmp_path: Path) -> None:
    """The variant comes from the file's metadata, the LoRA from the same file."""
    from tests.support import host, models

    base = tiny_models.write_base(tmp_path / "base32", context=768, unet=models.diffusers_unet("SD15", 32))
    encoder = tiny_models.write_encoder(tmp_path / "encoder_h", width=1280, embed_dim=1024)
    places = {"base": str(base), "encoder": str(encoder)}
    config = face_config(tmp_path, name, model=places, run={"steps": 2}, optimiser={"learning_rate": 1e-2})
    loop.train(config, run.start(config))
    path = tmp_path / "adapter.safetensors"
    export(Path(config.run.folder), path)
    adapter = host.part("nodes.models").load_adapter(path)
    spec, tensors = adapter.spec, read_adapter(path).tensors
    model, unet, prompt = models.comfy_model("SD15", 32), models.diffusers_unet("SD15", 32), models.Features.random()
    with models.Calls(model) as calls:
        models.sample(models.apply(model, adapter, prompt), models.text(5), models.text(0), steps=1, size=(8, 8))
    (call,) = calls
    faces = torch.nn.functional.normalize(prompt.identities(), dim=-1)
    features, identities = (
        torch.cat([some if role == 0 else none for role in call["roles"]])
        for some, none in (
            (prompt.features("penultimate"), prompt.unconditional("penultimate")), (faces, torch.zeros_like(faces)),
        )
    )  # fmt: skip
    first = features if spec.identity is None else identities
    extra: dict[str, Any] = {"clip": features, "shortcut": name == "FaceID plus v2"} if spec.face_crop else {}
    with oracles.merged(unet, tensors), oracles.diffusers_loader(unet, [tensors], [1.0]) as predict:
        wanted = predict(call["x"], call["t"], call["context"], [first[:, None]], **extra)
    print(f"\n{name} in ComfyUI: diffusers, with the LoRA merged by hand, {relative(call['output'], wanted):.1e}")
    assert relative(call["output"], wanted) <= BAR
