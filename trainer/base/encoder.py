"""The frozen image encoder: open_clip's vision transformer, from a tag, a weights file or a transformers folder.

Shapes: B batch, S sequence of hidden states (class token first), F their width, E width of the pooled embedding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from torch import Tensor, nn

from ipadapter_core import read_weights
from ipadapter_core.method.picture import on_white, square
from ipadapter_core.method.spec import Feature

# What weights alone do not tell, by hidden width: attention heads, and the activation of the published encoders.
HEADS = {768: 12, 1024: 16, 1280: 16, 1664: 16}
QUICK_GELU = (768, 1024)

# transformers' names to open_clip's; the three attention projections are joined separately.
RENAMED = [
    (r"^embeddings\.class_embedding$", "class_embedding"),
    (r"^embeddings\.patch_embedding\.weight$", "conv1.weight"),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^pre_layrnorm\.", "ln_pre."),
    (r"^post_layernorm\.", "ln_post."),
    (r"^encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"transformer.resblocks.\1.attn.out_proj."),
    (r"^encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"transformer.resblocks.\1.ln_\2."),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc1\.", r"transformer.resblocks.\1.mlp.c_fc."),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc2\.", r"transformer.resblocks.\1.mlp.c_proj."),
]


@dataclass(frozen=True)
class EncoderShape:
    """Everything about an encoder but its weights. width: of the hidden states; embed_dim: of the pooled embedding."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    embed_dim: int
    quick_gelu: bool
    mean: tuple[float, ...] = OPENAI_DATASET_MEAN
    std: tuple[float, ...] = OPENAI_DATASET_STD

    def feature_dim(self, feature: Feature) -> int:
        return self.embed_dim if feature == "pooled" else self.width


class ImageEncoder(nn.Module):
    """Pictures to features. Frozen, in evaluation mode."""

    def __init__(self, shape: EncoderShape, visual: VisionTransformer, name: str) -> None:
        super().__init__()
        self.shape, self.visual, self.name = shape, visual, name
        self.eval().requires_grad_(False)

    def pixels(self, pictures: list[Image.Image]) -> Tensor:
        """What the encoder sees: shortest side to its size, centre crop, normalised; [B, 3, S, S] on the CPU."""
        size = self.shape.image_size
        cut = np.stack([np.asarray(square(on_white(picture), size)) for picture in pictures])
        values = torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.shape.mean, self.shape.std))
        return (values - mean) / std

    def zero_pixels(self) -> Tensor:
        """A picture that is zero after normalisation, [1, 3, S, S]: the dropped picture of fine-grained adapters."""
        return torch.zeros(1, 3, self.shape.image_size, self.shape.image_size)

    @torch.no_grad()
    def forward(self, pixels: Tensor, feature: Feature) -> Tensor:
        """Normalised pixels [B, 3, S, S] to the pooled embedding [B, E] or the penultimate hidden states [B, S, F]."""
        pixels = pixels.to(self.visual.conv1.weight)
        if feature == "pooled":
            pooled = self.visual(pixels)
            return pooled[0] if isinstance(pooled, tuple) else pooled
        found = self.visual.forward_intermediates(
            pixels,
            indices=[self.shape.layers - 2],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        return torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)


def load_encoder(name: str, architecture: str = "") -> ImageEncoder:
    """The encoder that a config names, in fp32 on the CPU. Raises ValueError when there is none or it does not fit."""
    path = Path(name)
    if not path.exists():
        visual = _from_tag(name)
        return ImageEncoder(shape_of(name), visual, name)
    shape = shape_of(name, architecture)
    weights = to_open_clip(read_weights(_weights_file(path)).tensors)
    visual = build_visual(shape)
    expected = visual.state_dict()
    for key, value in expected.items():
        if key not in weights:
            raise ValueError(f"the image encoder {path.name} lacks the weight {key}: download it again")
        if weights[key].shape != value.shape:
            found, wanted = tuple(weights[key].shape), tuple(value.shape)
            raise ValueError(
                f"the image encoder {path.name} has {key} of {found}, expected {wanted}: check its architecture"
            )
    visual.load_state_dict({key: weights[key].float() for key in expected}, assign=True)
    return ImageEncoder(shape, visual, path.name)


def shape_of(name: str, architecture: str = "") -> EncoderShape:
    """An encoder's shape without its weights: from a tag, a file's shapes, or a folder's config.

    Raises ValueError when the name is none of these, or the weights are no CLIP image encoder.
    """
    path = Path(name)
    if path.is_dir():
        return _shape_of_folder(path)
    if path.is_file():
        return _shape_of_file(path, architecture)
    known = name.partition("/")[0]
    config = open_clip.get_model_config(known)
    if config is None or "width" not in config["vision_cfg"] or not isinstance(config["vision_cfg"].get("layers"), int):
        raise ValueError(
            f"there is no image encoder {name!r}: give open_clip's ARCHITECTURE/TAG of a vision transformer "
            "(ViT-H-14/laion2b_s32b_b79k), a weights file, or a transformers folder"
        )
    vision = config["vision_cfg"]
    return EncoderShape(
        image_size=vision.get("image_size", 224),
        patch_size=vision.get("patch_size", 16),
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // vision.get("head_width", 64),
        mlp_width=int(vision["width"] * vision.get("mlp_ratio", 4.0)),
        embed_dim=config["embed_dim"],
        quick_gelu=bool(config.get("quick_gelu")),
    )


def build_visual(shape: EncoderShape) -> VisionTransformer:
    """open_clip's vision transformer of this shape, with random weights."""
    return VisionTransformer(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        mlp_ratio=(shape.mlp_width + 0.5) / shape.width,  # the half keeps int(width * ratio) from rounding down
        output_dim=shape.embed_dim,
        act_layer=QuickGELU if shape.quick_gelu else nn.GELU,
    )


def to_open_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the image tower in open_clip's names, from open_clip's or transformers' whole model or tower."""
    if any(key.startswith("visual.") for key in weights):
        return {key.removeprefix("visual."): value for key, value in weights.items() if key.startswith("visual.")}
    if "conv1.weight" in weights:
        return dict(weights)
    named = {
        key.removeprefix("vision_model."): value for key, value in weights.items() if not key.startswith("text_model.")
    }
    if "embeddings.patch_embedding.weight" not in named or "visual_projection.weight" not in named:
        raise ValueError(
            "no CLIP image encoder was found in it: expected open_clip's or transformers' CLIP with a projection"
        )
    out = {"proj": named["visual_projection.weight"].T.contiguous()}
    for key, value in named.items():
        for pattern, replacement in RENAMED:
            if re.match(pattern, key):
                out[re.sub(pattern, replacement, key)] = value
        if match := re.match(r"^encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)$", key):
            parts = [named[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            out[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
    return out


def _from_tag(name: str) -> VisionTransformer:
    architecture, _, tag = name.partition("/")
    shape_of(name)  # refuses what is no architecture
    if not tag or tag not in open_clip.list_pretrained_tags_by_model(architecture):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(f"open_clip has no weights {tag!r} for {architecture}: choose one of {tags}")
    return open_clip.create_model(architecture, pretrained=tag).visual.float()


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in ("model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin"):
        if (path / name).exists():
            return path / name
    raise ValueError(
        f"the image encoder's folder {path} has no model.safetensors nor pytorch_model.bin: add the weights"
    )


def _shape_of_folder(path: Path) -> EncoderShape:
    if not (path / "config.json").exists():
        raise ValueError(
            f"the image encoder's folder {path} has no config.json: give a transformers folder, or the weights file"
        )
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    vision = config.get("vision_config", config)
    preprocessing = path / "preprocessor_config.json"
    normal = json.loads(preprocessing.read_text()) if preprocessing.exists() else {}
    return EncoderShape(
        image_size=vision.get("image_size", 224),
        patch_size=vision.get("patch_size", 32),
        width=vision.get("hidden_size", 768),
        layers=vision.get("num_hidden_layers", 12),
        heads=vision.get("num_attention_heads", 12),
        mlp_width=vision.get("intermediate_size", 3072),
        embed_dim=config.get("projection_dim", vision.get("projection_dim", 512)),
        quick_gelu=vision.get("hidden_act", "quick_gelu") == "quick_gelu",
        mean=tuple(normal.get("image_mean", OPENAI_DATASET_MEAN)),
        std=tuple(normal.get("image_std", OPENAI_DATASET_STD)),
    )


def _shape_of_file(path: Path, architecture: str) -> EncoderShape:
    try:
        weights = to_open_clip(read_weights(path).tensors)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    known = shape_of(architecture) if architecture else None
    width, _, patch_size, _ = weights["conv1.weight"].shape
    if known and known.width != width:
        raise ValueError(
            f"{path.name} is {width} wide, {architecture} is {known.width}: correct model.encoder_architecture"
        )
    if not known and width not in HEADS:
        raise ValueError(f"no published encoder is {width} wide like {path.name}: set model.encoder_architecture")
    return EncoderShape(
        image_size=int((len(weights["positional_embedding"]) - 1) ** 0.5) * patch_size,
        patch_size=patch_size,
        width=width,
        layers=len({key.split(".")[2] for key in weights if key.startswith("transformer.resblocks.")}),
        heads=known.heads if known else HEADS[width],
        mlp_width=weights["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        embed_dim=weights["proj"].shape[1],
        quick_gelu=known.quick_gelu if known else width in QUICK_GELU,
    )
