"""Pocket in ComfyUI against pocket in diffusers and transformers: every part, and whole pictures.

Both sides read the same folders: once with seeded random weights, once with those that the pack brings along.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ipadapter_core import read_adapter
from pocket.places import Places
from pocket.training import autoencoder, base, control, look, vision
from pocket.training.data import Pictures, references
from pocket.world.drawing import silhouettes
from pocket.world.scenes import DEVELOP
from pocket.world.settings import GUIDANCE
from tests.support import figures, host, models, oracles, pocket_models

pytestmark = pytest.mark.comfy

BAR = 1e-5
TEXTS = ["a red star", "", "a star on pink", "a blue moon on white"]
STEPS = 20


@dataclass
class Sides:
    """The same folders in ComfyUI (model, clip, vae) and in diffusers (unet)."""

    places: Places
    model: Any
    clip: Any
    vae: Any
    unet: Any

    def encoder(self) -> Any:
        encoders = host.part("nodes.encoders")
        return encoders._from_path(self.places.encoder, encoders.AUTO)

    def adapter(self, preset: str) -> Any:
        return host.part("nodes.models").load_adapter(self.places.adapters / f"{preset}.safetensors")

    def conditioning(self, text: str) -> Any:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))


@pytest.fixture(scope="module", params=["random", "trained"])
def sides(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    is_random = request.param == "random"
    places = pocket_models.write_random(tmp_path_factory.mktemp("pocket")) if is_random else Places()
    parts = host.part("pocket.comfyui")
    return Sides(places, parts.load_model(places), parts.load_clip(places), parts.load_vae(places), base.load(places))


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return references(4, DEVELOP)


def as_image(pictures: Pictures) -> Tensor:
    """As ComfyUI's IMAGE: [N, 64, 64, 3] of 0..1."""
    return pictures.of(torch.arange(len(pictures))).movedim(1, -1)


def test_text_states(sides: Sides) -> None:
    with torch.inference_mode():
        ours = torch.cat([sides.conditioning(text)[0][0] for text in TEXTS])
    figures.show("text states", ours, base.text_states(sides.places, TEXTS), BAR)


def test_words_that_no_caption_has(sides: Sides) -> None:
    """Punctuation, other words and ComfyUI's weights on words go through, as other tokens of the same tokenizer."""
    text = "a big, hairy hedgehog!"
    with torch.inference_mode():
        ours, weighted = (sides.conditioning(words)[0][0] for words in (text, "a (big:1.3), hairy hedgehog!"))
    figures.show("text states of other words", ours, base.text_states(sides.places, [text]), BAR)
    assert figures.relative(weighted, ours) > 1e-3


def test_autoencoder_both_ways(sides: Sides, pictures: Pictures) -> None:
    given = pictures.of(torch.arange(len(pictures)))
    model = autoencoder.load(sides.places)
    with torch.inference_mode():
        latents = sides.vae.encode(as_image(pictures))
        theirs = autoencoder.encode(model, given)
        figures.show("latents", latents, theirs, BAR)
        decoded = sides.vae.decode(theirs).movedim(-1, 1)
        figures.show("decoded pictures", decoded, autoencoder.decode(model, theirs), BAR)


def one_step(model: Any, positive: Any, negative: Any) -> dict[str, Any]:
    with models.Calls(model) as calls:
        models.sample(model, positive, negative, cfg=GUIDANCE, steps=1, size=(8, 8))
    (call,) = calls
    return call


def test_noise_prediction(sides: Sides) -> None:
    call = one_step(sides.model, sides.conditioning("a red star"), sides.conditioning(""))
    with torch.inference_mode():
        theirs = sides.unet(call["x"], call["t"], call["context"]).sample
    figures.show("noise prediction", call["output"], theirs, BAR)


@pytest.mark.parametrize("preset", pocket_models.PRESETS)
def test_noise_prediction_with_an_adapter(sides: Sides, pictures: Pictures, preset: str) -> None:
    """From the picture on: encoder, projection and attention by transformers and the reference's package."""
    prompt = host.part("nodes.prompts.pictures").encode(sides.encoder(), as_image(pictures)[:1], "centre")
    texts = (sides.conditioning("a red star"), sides.conditioning(""))
    plain = one_step(sides.model, *texts)
    call = one_step(models.apply(sides.model, sides.adapter(preset), prompt, 0.8), *texts)
    weights = {
        key: value.float()
        for key, value in read_adapter(sides.places.adapters / f"{preset}.safetensors").tensors.items()
    }
    encoder, feature = vision.load(sides.places), "pooled" if preset == "pocket" else "penultimate"
    given = vision.features(encoder, vision.normalised(pictures.of(torch.arange(1))), feature)
    nothing = vision.features(encoder, torch.zeros(1, 3, 64, 64), feature)
    nothing = torch.zeros_like(given) if feature == "pooled" else nothing
    features = torch.cat([given if role == 0 else nothing for role in call["roles"]])
    with oracles.package(sides.unet, weights, 0.8) as predict:
        theirs = predict(call["x"], call["t"], call["context"], features)
    effect = figures.relative(call["output"], plain["output"])
    print(f"\n{preset}: what it changes {effect:.1e}")
    assert effect > 1e-2
    figures.show(f"noise prediction with {preset}", call["output"], theirs, BAR)


def test_noise_prediction_with_the_controlnet(sides: Sides, pictures: Pictures) -> None:
    net = host.part("pocket.comfyui").load_controlnet(sides.places)
    hint = silhouettes(pictures.scenes[:1], pictures.given.of(slice(0, 1)))
    texts = (sides.conditioning("a red star"), sides.conditioning(""))
    plain = one_step(sides.model, *texts)
    call = one_step(sides.model, *controlled(net, hint, *texts))
    theirs_net = control.load(sides.places)
    with torch.inference_mode():
        theirs = control.controlled(
            sides.unet, theirs_net, call["x"], call["t"], call["context"], hint.expand(2, -1, -1, -1), 0.7
        )
    effect = figures.relative(call["output"], plain["output"])
    print(f"\nwhat the ControlNet changes: {effect:.1e}")
    assert effect > 1e-3
    figures.show("noise prediction with the ControlNet", call["output"], theirs, BAR)


def controlled(net: Any, hint: Tensor, positive: Any, negative: Any, strength: float = 0.7) -> Any:
    """What ControlNetApplyAdvanced does."""
    import nodes

    image = hint.movedim(1, -1)
    return nodes.ControlNetApplyAdvanced().apply_controlnet(positive, negative, net, image, strength, 0.0, 1.0)


def test_the_other_look(sides: Sides) -> None:
    """The LoRA by ComfyUI's own loader, against its matrices added to diffusers' UNet."""
    import comfy.sd
    import comfy.utils

    lora = comfy.utils.load_torch_file(str(sides.places.look), safe_load=True)
    patched, _ = comfy.sd.load_lora_for_models(sides.model, None, lora, 1.0, 0.0)
    texts = (sides.conditioning("a red star"), sides.conditioning(""))
    plain, call = one_step(sides.model, *texts), one_step(patched, *texts)
    with torch.inference_mode():
        theirs = look.load(sides.places)(call["x"], call["t"], call["context"]).sample
    assert len(patched.patches) == len(look.matrices(sides.unet))
    effect = figures.relative(call["output"], plain["output"])
    print(f"\nwhat the LoRA changes: {effect:.1e}")
    assert effect > 1e-3
    figures.show("noise prediction in the other look", call["output"], theirs, BAR)


@pytest.mark.slow
@pytest.mark.parametrize("preset", [None, *pocket_models.PRESETS])
def test_whole_pictures(sides: Sides, pictures: Pictures, preset: str | None) -> None:
    """Twenty DDIM steps and the autoencoder, in steps of 8 bits."""
    texts = (sides.conditioning("a star"), sides.conditioning(""))
    model, count = sides.model, len(pictures)
    if preset:
        prompt = host.part("nodes.prompts.pictures").encode(sides.encoder(), as_image(pictures), "centre")
        combine = "one for each latent"
        model = models.apply(model, sides.adapter(preset), prompt, 0.7, combine=combine)
    settings = {"sampler": "ddim", "scheduler": "ddim_uniform", "size": (8, 8), "batch": count}
    latents = models.sample(model, *texts, cfg=GUIDANCE, steps=STEPS, **settings)
    with torch.inference_mode():
        ours = sides.vae.decode(latents)
    theirs = autoencoder.decode(
        autoencoder.load(sides.places), ddim(sides, pictures, preset, [text[0][0] for text in texts])
    ).movedim(1, -1)
    largest = 255 * float((ours - theirs).abs().max())
    print(f"\n{preset or 'without an adapter'}: largest difference of {count} pictures {largest:.4f} of 255")
    assert ours.std() > 0.01
    assert largest <= 2


@torch.no_grad()
def ddim(sides: Sides, pictures: Pictures, preset: str | None, states: list[Tensor]) -> Tensor:
    """Latents by diffusers. ComfyUI starts from noise scaled to its largest sigma."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip
    scheduler.set_timesteps(STEPS)
    count = len(pictures)
    alpha = scheduler.alphas_cumprod[scheduler.timesteps[0]]
    noise = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    latents = noise * (1 - alpha).sqrt()
    context = torch.cat([state.expand(count, -1, -1) for state in reversed(states)])
    predict: Any = lambda x, t: sides.unet(x, t, context).sample  # noqa: E731
    if preset:
        encoder, feature = vision.load(sides.places), "pooled" if preset == "pocket" else "penultimate"
        given = vision.features(encoder, vision.normalised(pictures.of(torch.arange(count))), feature)
        nothing = vision.features(encoder, torch.zeros(count, 3, 64, 64), feature)
        features = torch.cat([torch.zeros_like(given) if preset == "pocket" else nothing, given])
        weights = read_adapter(sides.places.adapters / f"{preset}.safetensors").tensors
        with oracles.package(sides.unet, {key: value.float() for key, value in weights.items()}, 0.7) as by_package:
            return _steps(scheduler, latents, lambda x, t: by_package(x, t, context, features))
    return _steps(scheduler, latents, predict)


def _steps(scheduler: DDIMScheduler, latents: Tensor, predict: Any) -> Tensor:
    for t in scheduler.timesteps:
        without, wanted = predict(latents.repeat(2, 1, 1, 1), t).chunk(2)
        latents = scheduler.step(without + GUIDANCE * (wanted - without), t, latents).prev_sample
    return latents


@pytest.mark.slow
def test_the_pack_needs_nothing_that_comfyui_lacks() -> None:
    """The nodes, pocket's among them, where diffusers and the trainer's other packages are not installed."""
    code = """
import sys
sys.modules.update(dict.fromkeys(["diffusers", "accelerate", "deepspeed", "trainer"]))
from tests.support import host
print(*(node.define_schema().node_id for node in host.part("nodes").NODES))
"""
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]).stdout
    assert {"ImagePromptLoadPocket", "ImagePromptPocketPicture"} <= set(told.split())


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pocket's unet is not in .*: get the folder pocket/weights"):
        host.part("pocket.comfyui").load_model(Places(tmp_path))
