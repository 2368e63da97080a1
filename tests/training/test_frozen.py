"""The frozen parts: encoders and bases from every kind of place, and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionModelWithProjection

from ipadapter_core import encoder_square
from tests.support import runs, tiny_models
from trainer.base.encoder import build_visual, encoder_facts, load_encoder
from trainer.base.frozen import Frozen
from trainer.base.tokenizer import clip_tokenizer
from trainer.data.batch import Batch
from trainer.data.geometry import Geometry
from trainer.settings.config import ModelConfig
from trainer.step.inputs import draw_latents, to_inputs
from trainer.step.shape import adapter_spec

BAR = 1e-5


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (50, 40, 3), dtype=np.uint8))


def test_transformers_folder_in_open_clip_gives_the_same_features(tmp_path: Path) -> None:
    folder = tiny_models.write_encoder(tmp_path)
    encoder, reference = load_encoder(str(folder)), CLIPVisionModelWithProjection.from_pretrained(folder)
    pixels = encoder.pixels([picture(0), picture(1)])
    with torch.no_grad():
        wanted = reference(pixels, output_hidden_states=True)
    pooled = float((encoder(pixels, "pooled") - wanted.image_embeds).abs().max())
    hidden = float((encoder(pixels, "penultimate") - wanted.hidden_states[-2]).abs().max())
    print(f"\nopen_clip and transformers: pooled {pooled:.1e}, penultimate {hidden:.1e}")
    assert max(pooled, hidden) <= BAR


def test_an_encoder_is_built_without_weights_of_its_own() -> None:
    """They would take seconds and gigabytes, and are replaced."""
    visual = build_visual(encoder_facts("ViT-H-14/laion2b_s32b_b79k"))
    assert all(weight.is_meta for weight in visual.parameters()) and not list(visual.buffers())


def test_open_clip_file_and_preprocessing(tmp_path: Path) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", pretrained=None)
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    encoder = load_encoder(str(tmp_path / "clip.safetensors"))
    pixels = encoder.pixels([picture()])
    assert torch.allclose(pixels[0], preprocess(picture()), atol=1e-6)
    with torch.no_grad():
        wanted = model.encode_image(pixels)
    difference = float((encoder(pixels, "pooled") - wanted).abs().max() / wanted.abs().max())
    print(f"\nopen_clip's file: {difference:.1e}")
    assert difference <= BAR


def test_tokenizer_is_clips() -> None:
    texts = ["a photo of a cat, isn't it? über 12 naïve", "", "A  B\n<c> 日本 " + "word " * 100]
    ours = clip_tokenizer("!")(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    assert torch.equal(ours, open_clip.tokenize(texts).long())


@pytest.mark.parametrize("kind", ["kl", "tiny", "dc"])
def test_every_autoencoder_gives_moments(kind: str, tmp_path: Path) -> None:
    base = tiny_models.write_base(tmp_path, vae=kind)
    frozen = Frozen(ModelConfig(base=str(base)))
    moments = frozen.base.encode_pictures(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert moments.shape == (2, 2, 4, 8, 8)
    assert bool((moments[:, 1] > 0).all()) == (kind == "kl")
    assert moments.shape[2:] == frozen.base.latent_shape(64)
    drawn = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))
    latents = draw_latents(moments[:1], drawn[None], frozen.base.latent_scale)
    factor, shift = frozen.base.latent_scale
    assert torch.allclose(latents[0], (moments[0, 0] + moments[0, 1] * drawn - shift) * factor)


@pytest.mark.parametrize("feature", ["pooled", "penultimate"])
def test_dropped_pictures_are_zero_before_the_projection(feature: Any, tmp_path: Path) -> None:
    family = "base" if feature == "pooled" else "plus"
    config = runs.tiny_config(tmp_path, adapter={"family": family})
    frozen = Frozen(config.model)
    spec = adapter_spec(config.adapter, frozen.base.sites, frozen.encoder_facts)
    side = (64, 64)
    batch = Batch(
        names=["a", "b"],
        pixels=torch.full((2, 3, 64, 64), 127, dtype=torch.uint8),
        moments=None,
        captions=["one", ""],
        texts=None,
        condition=torch.stack([encoder_square(picture(number), frozen.encoder_facts) for number in range(2)]),
        features=None,
        drop_image=torch.tensor([False, True]),
        uniform=torch.tensor([0.1, 0.6]),
        drawn=torch.zeros(2, 4, 8, 8),
        noise=torch.zeros(2, 4, 8, 8),
        geometries=[Geometry(side, (0, 0), side)] * 2,
    )
    inputs = to_inputs(batch, frozen, spec, batch.uniform)
    zero_pixels = torch.zeros(1, 3, 32, 32)
    wanted = torch.zeros(24) if feature == "pooled" else frozen.encoder(zero_pixels, "penultimate")[0]
    assert torch.equal(inputs.given.features[1], wanted)
    assert torch.allclose(inputs.given.features[0], frozen.image_features([picture(0)], feature)[0], atol=1e-6)
    assert torch.equal(inputs.conditioning["states"][1], frozen.base.encode_texts([""])["states"][0])


@pytest.mark.slow
@pytest.mark.comfy
def test_single_file_gives_what_its_folder_gives(tmp_path: Path) -> None:
    from tests.support import models  # ComfyUI's names of the same weights

    unet = models.diffusers_unet("SD15", 32)
    folder = tiny_models.write_base(tmp_path / "folder", context=768, unet=unet)
    wanted = Frozen(ModelConfig(base=str(folder)))
    names = models.comfy.utils.unet_to_diffusers(models.UNETS["SD15"] | {"model_channels": 32})
    tensors = {f"model.diffusion_model.{names[key]}": value for key, value in unet.state_dict().items()}
    from comfy.diffusers_convert import convert_vae_state_dict

    vae = {key: value for key, value in wanted.base.vae.state_dict().items()}
    tensors |= {f"first_stage_model.{key}": value for key, value in convert_vae_state_dict(vae).items()}
    text = wanted.base.text_encoders[0].state_dict()
    tensors |= {
        f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}": value
        for key, value in text.items()
    }
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, tmp_path / "base.safetensors")
    found = Frozen(ModelConfig(base=str(tmp_path / "base.safetensors"), base_config=str(folder)))

    x, states = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 768)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        pairs = {
            "UNet": (found.base.unet(x, 10, states).sample, wanted.base.unet(x, 10, states).sample),
            "autoencoder": (found.base.encode_pictures(pixels), wanted.base.encode_pictures(pixels)),
            "text": (found.base.encode_texts(["a cat"])["states"], wanted.base.encode_texts(["a cat"])["states"]),
        }
    for name, (ours, reference) in pairs.items():
        difference = float((ours - reference).abs().max())
        print(f"{name}: {difference:.1e}")
        assert difference <= BAR, name
