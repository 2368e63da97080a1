"""Pocket with seeded random weights in its own shapes: every part as its training writes it, nothing zero."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from ipadapter_core import AdapterSpec, IPAdapter, LinearProjection, ResamplerProjection, unet_sites, write_safetensors
from pocket.places import Places
from pocket.training import autoencoder, base, control, look, text, vision
from pocket.training.fitting import write_weights

PRESETS = ("pocket", "pocket_plus")


def filled(module: nn.Module) -> nn.Module:
    """Random values in every matrix that its class or its training starts at zero."""
    for value in module.parameters():
        if value.ndim > 1 and not value.any():
            nn.init.normal_(value, std=1 / math.sqrt(value[0].numel()))
    return module.requires_grad_(False)


def write_random(folder: Path) -> Places:
    """All of pocket but the judge."""
    torch.manual_seed(0)
    places = Places(folder, folder / "work")
    unet, vae = filled(base.build()), filled(autoencoder.build())
    for name, module in (("unet", unet), ("vae", vae)):
        module.save_config(places.base / name)
        write_weights(places.base / name / "diffusion_pytorch_model.safetensors", module)
    tokenizer = text.build_tokenizer()
    text.write_tokenizer(tokenizer, places)
    write_transformers(places.base / "text_encoder", text.build(tokenizer))
    write_transformers(places.encoder, vision.build())
    net = filled(control.build(unet))
    net.save_config(places.controlnet)
    write_weights(places.controlnet / "diffusion_pytorch_model.safetensors", net)
    tuned = base.load(places)
    for value in look.matrices(tuned).values():
        value += 0.02 * torch.randn(value.shape)
    look.write_lora(places, tuned)
    for preset in PRESETS:
        write_random_adapter(places, preset, unet)
    return places


def write_transformers(folder: Path, module: CLIPTextModel | CLIPVisionModelWithProjection) -> None:
    module.config.save_pretrained(folder)
    write_weights(folder / "model.safetensors", module, {"format": "pt"})


def write_random_adapter(places: Places, preset: str, unet: nn.Module) -> None:
    table = unet_sites((name for name, _ in unet.named_modules()), unet.config.layers_per_block)
    to_k = {layer.index: unet.get_submodule(layer.diffusers).to_k for layer in table}
    layers, context = tuple(sorted(to_k)), text.WIDTH
    if preset == "pocket":
        spec = AdapterSpec("base", "pooled", vision.EMBED, context, 4, layers, LinearProjection())
    else:
        shape = ResamplerProjection(width=128, depth=2, num_heads=2, ff_width=512)
        spec = AdapterSpec("plus", "penultimate", vision.WIDTH, context, 16, layers, shape)
    adapter = IPAdapter(spec, {index: module.out_features for index, module in to_k.items()})
    for value in adapter.ip_adapter.parameters():
        nn.init.normal_(value, std=2 * context**-0.5)
    places.adapters.mkdir(parents=True, exist_ok=True)
    write_safetensors(
        places.adapters / f"{preset}.safetensors",
        {key: value.half() for key, value in adapter.state_dict().items()},
        {},
    )
