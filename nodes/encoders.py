"""Load Image Encoder: an open_clip or transformers CLIP image encoder of any depth as ComfyUI's own CLIP_VISION."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.clip_vision
import torch
from comfy_api.latest import io
from torch import Tensor

from ..ipadapter_core import read_weights
from . import folders
from .sockets import CATEGORY

AUTO = "auto"
OPEN_CLIP = "open_clip: "
# open_clip's names of the encoders that published adapters use; tags are downloaded when chosen.
ARCHITECTURES = ["ViT-H-14", "ViT-bigG-14", "ViT-L-14", "ViT-L-14-quickgelu", "ViT-L-14-336", "ViT-L-14-336-quickgelu"]
TAGS = [
    f"{OPEN_CLIP}{name}"
    for name in (
        "ViT-H-14/laion2b_s32b_b79k",
        "ViT-bigG-14/laion2b_s39b_b160k",
        "ViT-L-14-quickgelu/openai",
        "ViT-L-14-336-quickgelu/openai",
    )
]
# What weights alone do not tell, by hidden width: attention heads, and the activation of the published encoder.
HEADS = {768: 12, 1024: 16, 1280: 16, 1664: 16}
QUICK_GELU = (768, 1024)

_alive: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()


def load_encoder(name: str, architecture: str = AUTO) -> comfy.clip_vision.ClipVisionModel:
    """An image encoder by its listed name; the same unchanged file gives the same object while anyone holds it."""
    if name.startswith(OPEN_CLIP):
        return _alive_or_built(name, lambda: _from_tag(*name.removeprefix(OPEN_CLIP).split("/")))
    path = folders.path_of(folders.ENCODERS, name)
    return _alive_or_built((folders.state(path), architecture), lambda: _from_path(path, architecture))


def _alive_or_built(key: Any, build: Any) -> comfy.clip_vision.ClipVisionModel:
    encoder = _alive.get(key)
    if encoder is None:
        encoder = _alive[key] = build()
    return encoder


def _from_tag(architecture: str, tag: str) -> comfy.clip_vision.ClipVisionModel:
    import open_clip  # here, because it takes seconds and few graphs need it

    model = open_clip.create_model(architecture, pretrained=tag)
    weights = {f"visual.{key}": value for key, value in model.visual.state_dict().items()}
    return build_encoder(weights, open_clip_config(architecture))


def _from_path(path: Path, architecture: str) -> comfy.clip_vision.ClipVisionModel:
    known: dict[str, Any] | None = None
    if path.is_dir():
        known = _transformers_config(path / "config.json")
        path = _weights_in(path)
    if architecture != AUTO:
        known = open_clip_config(architecture)
    weights = dict(read_weights(path).tensors)
    try:
        return build_encoder(weights, known)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _transformers_config(path: Path) -> dict[str, Any]:
    """The vision part of a transformers config.json, with transformers' own defaults for what it leaves out."""
    try:
        config = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): download it again") from error
    return {"num_attention_heads": 12, "hidden_act": "quick_gelu"} | config.get("vision_config", config)


def _weights_in(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"{folder} has a config.json but neither model.safetensors nor pytorch_model.bin: add the weights")


def open_clip_config(architecture: str) -> dict[str, Any]:
    """An open_clip architecture's vision part in transformers' words. Raises ValueError for an unknown name."""
    import open_clip

    config = open_clip.get_model_config(architecture)
    if config is None or not isinstance(config["vision_cfg"].get("layers"), int):  # a ResNet has one for each stage
        raise ValueError(f"open_clip has no vision transformer named {architecture!r}: choose one of {ARCHITECTURES}")
    vision = config["vision_cfg"]
    return {
        "hidden_size": vision["width"],
        "num_attention_heads": vision["width"] // vision.get("head_width", 64),
        "hidden_act": "quick_gelu" if config.get("quick_gelu") else "gelu",
    }


def build_encoder(
    weights: dict[str, Tensor], known: Mapping[str, Any] | None = None
) -> comfy.clip_vision.ClipVisionModel:
    """ComfyUI's CLIP_VISION from weights in open_clip's or transformers' layout.

    known: what the weights do not tell (heads, activation), in transformers' words; None for the published encoders.
    Raises ValueError when the weights are no CLIP image encoder or some are missing.
    """
    prefix = "visual." if any(key.startswith("visual.") for key in weights) else ""
    weights = comfy.clip_vision.convert_to_transformers(weights, prefix)
    config = _config(weights, known or {})
    encoder = comfy.clip_vision.ClipVisionModel(config)
    for key, value in encoder.get_sd().items():
        if key in weights and weights[key].shape != value.shape:
            raise ValueError(
                f"the image encoder's {key} is {tuple(weights[key].shape)}, expected {tuple(value.shape)}: "
                "download it again"
            )
    missing, _ = encoder.load_sd(weights)
    if missing:
        raise ValueError(f"the image encoder lacks {len(missing)} weights ({missing[0]}, ...): download it again")
    return encoder


def _config(weights: Mapping[str, Tensor], known: Mapping[str, Any]) -> dict[str, Any]:
    patches = weights.get("vision_model.embeddings.patch_embedding.weight")
    positions = weights.get("vision_model.embeddings.position_embedding.weight")
    if patches is None or positions is None or "visual_projection.weight" not in weights:
        raise ValueError(
            "no CLIP image encoder was found in it: expected open_clip's or transformers' CLIP with a projection"
        )
    width, channels, patch_size, _ = patches.shape
    if known.get("hidden_size", width) != width:
        raise ValueError(
            f"the weights are {width} wide, the chosen architecture {known['hidden_size']}: choose {AUTO!r}"
        )
    if "num_attention_heads" not in known and width not in HEADS:
        raise ValueError(
            f"no published encoder is {width} wide: choose its architecture, or its folder with config.json"
        )
    layers = {key.split(".")[3] for key in weights if key.startswith("vision_model.encoder.layers.")}
    return {
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch_size,
        "image_size": int((len(positions) - 1) ** 0.5) * patch_size,
        "num_hidden_layers": len(layers),
        "intermediate_size": weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "projection_dim": weights["visual_projection.weight"].shape[0],
        "num_attention_heads": known.get("num_attention_heads") or HEADS[width],
        "hidden_act": known.get("hidden_act") or ("quick_gelu" if width in QUICK_GELU else "gelu"),
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


class LoadEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptLoadEncoder",
            display_name="Load Image Encoder",
            category=CATEGORY,
            description="Loads a CLIP image encoder, open_clip's or transformers': a file, a folder or a tag.",
            search_aliases=["clip vision", "open_clip", "image encoder"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=folders.encoder_files() + TAGS,
                    tooltip="A file or transformers folder in models/clip_vision, or an open_clip tag, which is "
                    "downloaded once. Most adapters for SD1.5, and the SDXL ones named vit-h, need ViT-H/14; the other "
                    "SDXL ones ViT-bigG/14.",
                ),
                io.Combo.Input(
                    "architecture",
                    options=[AUTO, *ARCHITECTURES],
                    default=AUTO,
                    advanced=True,
                    tooltip="open_clip's name of the architecture. 'auto' (neutral) is right for published encoders; "
                    "choose ViT-L-14 for a ViT-L that was trained by open_clip with GELU.",
                ),
            ],
            outputs=[io.ClipVision.Output(display_name="encoder")],
        )

    @classmethod
    def fingerprint_inputs(cls, weights: str, architecture: str) -> Any:
        if weights.startswith(OPEN_CLIP):
            return weights
        return folders.fingerprint(folders.path_of(folders.ENCODERS, weights)), architecture

    @classmethod
    def execute(cls, weights: str, architecture: str) -> io.NodeOutput:
        return io.NodeOutput(load_encoder(weights, architecture))
