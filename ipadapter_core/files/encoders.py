"""Files of CLIP image encoders: open_clip's or transformers', one file or a folder with config.json.

What shapes tell is read off the weights; heads, activation and normalisation come from the folder's config, from an
architecture that is named, or from the published encoder of the same width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..facts.encoders import ARCHITECTURES, BY_WIDTH, CLIP_MEAN, CLIP_STD, Encoder
from .folder import CONFIG, json_of, parts_of, weights_of
from .read import read_plain_weights, read_shapes

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
# Weights that tell patches, projection, positions and MLP; what the layers' names begin with.
OPEN_CLIP = (
    "conv1.weight", "proj", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight", "transformer.resblocks.",
)  # fmt: skip
TRANSFORMERS = (
    "embeddings.patch_embedding.weight", "visual_projection.weight", "embeddings.position_embedding.weight",
    "encoder.layers.0.mlp.fc1.weight", "encoder.layers.",
)  # fmt: skip
SPLIT = re.compile(r"^encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)$")


@dataclass(frozen=True)
class EncoderFile:
    """An encoder's facts, and the weights of its image tower as the file has them (`image_tower`)."""

    encoder: Encoder
    weights: dict[str, Tensor]


def read_encoder(path: Path, architecture: Encoder | None = None) -> EncoderFile:
    """Read an image encoder: a weights file, or a transformers folder; in one file or in parts.

    architecture: what the weights do not tell, where the user names it.
    Raises ValueError, naming the file, when it is not a CLIP image encoder or its heads are not known.
    """
    known = architecture
    if path.is_dir():
        config = read_config(path)
        known = config if architecture is None else replace(architecture, mean=config.mean, std=config.std)
        files = weights_of(path)
    else:
        files = parts_of(path)
    weights = {key: value for file in files for key, value in read_plain_weights(file).tensors.items()}
    try:
        tower = image_tower(weights)
        return EncoderFile(encoder_of_weights(tower, known), tower)
    except ValueError as error:
        raise ValueError(f"{files[0].name}: {error}") from error


def read_encoder_facts(path: Path) -> Encoder:
    """What `read_encoder` says of a file or a folder, by its config or its headers alone.

    Raises ValueError as it does, as far as these tell.
    """
    if path.is_dir():
        config = read_config(path)
        weights_of(path)
        return config
    shapes = {key: value for file in parts_of(path) for key, value in read_shapes(file).shapes.items()}
    return encoder_of_weights(image_tower(cast("dict[str, Any]", shapes)))


def read_config(folder: Path) -> Encoder:
    """What a transformers folder says of its encoder, with transformers' own defaults for what it leaves out.

    Raises ValueError when there is no config.json, or it is damaged.
    """
    path = folder / CONFIG
    if not path.exists():
        raise ValueError(
            f"the image encoder's folder {folder} has no config.json: give a transformers folder, or the weights file"
        )
    config = json_of(path)
    vision = config.get("vision_config", config)
    preprocessing = folder / "preprocessor_config.json"
    normal = json_of(preprocessing) if preprocessing.exists() else {}
    return Encoder(
        image_size=vision.get("image_size", 224),
        patch_size=vision.get("patch_size", 32),
        width=vision.get("hidden_size", 768),
        depth=vision.get("num_hidden_layers", 12),
        num_heads=vision.get("num_attention_heads", 12),
        mlp_width=vision.get("intermediate_size", 3072),
        embed_dim=config.get("projection_dim", vision.get("projection_dim", 512)),
        activation="quick_gelu" if vision.get("hidden_act", "quick_gelu") == "quick_gelu" else "gelu",
        mean=tuple(normal.get("image_mean", CLIP_MEAN)),
        std=tuple(normal.get("image_std", CLIP_STD)),
    )


def encoder_of_open_clip(name: str, config: Mapping[str, Any] | None) -> Encoder:
    """What open_clip's configuration of the architecture `name` says of its image tower; None: it has none.

    Raises ValueError when there is no such architecture, or it is not a vision transformer.
    """
    vision = config["vision_cfg"] if config else {}
    if config is None or "width" not in vision or not isinstance(vision.get("layers"), int):  # a ResNet has several
        raise ValueError(
            f"open_clip has no vision transformer named {name!r}: choose one of {', '.join(ARCHITECTURES)} or the like"
        )
    return Encoder(
        image_size=vision.get("image_size", 224),
        patch_size=vision.get("patch_size", 16),
        width=vision["width"],
        depth=vision["layers"],
        num_heads=vision["width"] // vision.get("head_width", 64),
        mlp_width=int(vision["width"] * vision.get("mlp_ratio", 4.0)),
        embed_dim=config["embed_dim"],
        activation="quick_gelu" if config.get("quick_gelu") else "gelu",
    )


def image_tower(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the image tower out of a whole CLIP or a tower, without a prefix: in open_clip's names
    ("conv1.weight", ...) or transformers' ("embeddings.patch_embedding.weight", ..., "visual_projection.weight").

    Raises ValueError when there is no CLIP image encoder with a projection in them.
    """
    if any(key.startswith("visual.") for key in weights):
        tower = {key.removeprefix("visual."): value for key, value in weights.items() if key.startswith("visual.")}
    else:
        tower = {
            key.removeprefix("vision_model."): value
            for key, value in weights.items()
            if not key.startswith(("text_model.", "text_projection.", "logit_scale"))
        }
    if not any({patches, projection} <= tower.keys() for patches, projection in (OPEN_CLIP[:2], TRANSFORMERS[:2])):
        raise ValueError(
            "no CLIP image encoder was found in it: expected open_clip's or transformers' CLIP with a projection"
        )
    return tower


def encoder_of_weights(tower: Mapping[str, Tensor], known: Encoder | None = None) -> Encoder:
    """The encoder that an image tower belongs to; `known`: what its weights do not tell.

    Raises ValueError when they are of another width than `known`, of a width that no published encoder has, or when
    one that tells a size is missing.
    """
    is_open_clip = OPEN_CLIP[0] in tower
    names = OPEN_CLIP if is_open_clip else TRANSFORMERS
    if missing := [name for name in names[:4] if name not in tower]:
        raise ValueError(f"the image encoder lacks the weight {missing[0]}: download it again")
    patches, projection, positions, mlp = (tuple(tower[name].shape) for name in names[:4])
    width, _, patch_size, _ = patches
    if known is not None and known.width != width:
        raise ValueError(
            f"the weights are {width} wide, the chosen architecture {known.width}: choose the one that fits, or 'auto'"
        )
    known = known or BY_WIDTH.get(width)
    if known is None:
        raise ValueError(
            f"no published encoder is {width} wide: choose its architecture, or give its folder with config.json"
        )
    return replace(
        known,
        image_size=int((positions[0] - 1) ** 0.5) * patch_size,
        patch_size=patch_size,
        width=width,
        depth=len({key.split(".")[2] for key in tower if key.startswith(names[4])}),
        mlp_width=mlp[0],
        embed_dim=projection[1 if is_open_clip else 0],
    )


def to_open_clip(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An image tower in open_clip's names. Raises ValueError when a part of an attention is missing."""
    if OPEN_CLIP[0] in tower:
        return dict(tower)
    out = {"proj": tower["visual_projection.weight"].T.contiguous()}
    for key, value in tower.items():
        for pattern, replacement in RENAMED:
            if re.match(pattern, key):
                out[re.sub(pattern, replacement, key)] = value
        if match := SPLIT.match(key):
            names = [key.replace("q_proj", f"{part}_proj") for part in "qkv"]
            if missing := [name for name in names if name not in tower]:
                raise ValueError(f"the image encoder lacks the weight {missing[0]}: download it again")
            out[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat([tower[n] for n in names])
    return out
