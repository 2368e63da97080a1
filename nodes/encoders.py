"""Image encoders of any depth, from open_clip or transformers, as ComfyUI's own CLIP_VISION."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.clip_vision
import torch
from torch import Tensor

from ..ipadapter_core import (
    ARCHITECTURES,
    ENCODERS,
    Encoder,
    encoder_of_open_clip,
    encoder_of_weights,
    image_tower,
    read_encoder,
)
from . import folders
from .downloads import downloaded, open_clip

AUTO = "auto"
OPEN_CLIP = "open_clip: "
TAGS = [f"{OPEN_CLIP}{one.tag}" for one in ENCODERS]  # downloaded when chosen

_alive: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()


def load_encoder(name: str, architecture: str = AUTO) -> comfy.clip_vision.ClipVisionModel:
    """An image encoder by its listed name; the same unchanged file gives the same object while anyone holds it."""
    if name.startswith(OPEN_CLIP):
        return _alive_or_built(name, lambda: _from_tag(*name.removeprefix(OPEN_CLIP).split("/")))
    path = folders.encoder_path(name)
    return _alive_or_built((folders.state(path), architecture), lambda: _from_path(path, architecture))


def _alive_or_built(key: Any, build: Any) -> comfy.clip_vision.ClipVisionModel:
    encoder = _alive.get(key)
    if encoder is None:
        encoder = _alive[key] = build()
    return encoder


def _from_tag(architecture: str, tag: str) -> comfy.clip_vision.ClipVisionModel:
    return _from_path(downloaded(architecture, tag), architecture)


def _from_path(path: Path, architecture: str) -> comfy.clip_vision.ClipVisionModel:
    file = read_encoder(path, None if architecture == AUTO else architecture_facts(architecture))
    try:
        return build_encoder(file.weights, file.encoder)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def architecture_facts(architecture: str) -> Encoder:
    """What is known of an architecture by open_clip's name. Raises ValueError for an unknown name."""
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture]
    return encoder_of_open_clip(architecture, open_clip().get_model_config(architecture))


def build_encoder(weights: Mapping[str, Tensor], known: Encoder | None = None) -> comfy.clip_vision.ClipVisionModel:
    """ComfyUI's CLIP_VISION from weights in open_clip's or transformers' names.

    known: what the weights do not tell (heads, activation, normalisation); None: as the published encoders'.
    Raises ValueError when the weights are not a CLIP image encoder or some are missing.
    """
    tower = image_tower(weights)
    encoder = comfy.clip_vision.ClipVisionModel(comfy_config(encoder_of_weights(tower, known)))
    named = in_transformers_names(tower)
    for key, value in encoder.get_sd().items():
        if key in named and named[key].shape != value.shape:
            raise ValueError(
                f"the image encoder's {key} is {tuple(named[key].shape)}, expected {tuple(value.shape)}: "
                "download it again"
            )
    missing, _ = encoder.load_sd(named)
    if missing:
        raise ValueError(f"the image encoder lacks {len(missing)} weights ({missing[0]}, ...): download it again")
    return encoder


def in_transformers_names(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An image tower in the names of transformers' whole model, which ComfyUI's encoder has."""
    if "conv1.weight" in tower:
        return comfy.clip_vision.convert_to_transformers(dict(tower), "")
    return {
        key if key.startswith("visual_projection.") else f"vision_model.{key}": value for key, value in tower.items()
    }


def comfy_config(encoder: Encoder) -> dict[str, Any]:
    """An encoder's facts as ComfyUI's configuration of a CLIP_VISION."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": encoder.width,
        "num_channels": 3,
        "patch_size": encoder.patch_size,
        "image_size": encoder.image_size,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
        "num_hidden_layers": encoder.depth,
        "intermediate_size": encoder.mlp_width,
        "projection_dim": encoder.embed_dim,
        "num_attention_heads": encoder.num_heads,
        "hidden_act": encoder.activation,
    }


@torch.no_grad()
def encode_zeros(encoder: comfy.clip_vision.ClipVisionModel) -> Tensor:
    """Penultimate hidden states [1, S, F] of a picture that is zero after normalisation.

    That is grey, but not of 8 bits, so ComfyUI's `encode_image` cannot give it.
    """
    comfy.model_management.load_model_gpu(encoder.patcher)
    pixels = torch.zeros(1, 3, encoder.image_size, encoder.image_size, device=encoder.load_device)
    hidden = encoder.model(pixel_values=pixels, intermediate_output=-2)[1]
    return hidden.to(comfy.model_management.intermediate_device())
