"""Seeded random CLIP image encoders, in transformers' layout and in open_clip's."""

import open_clip
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection


def vision_config(name: str, layers: int = 2) -> CLIPVisionConfig:
    """transformers' configuration of an open_clip architecture at true widths."""
    config = open_clip.get_model_config(name)
    vision = config["vision_cfg"]
    width = vision["width"]
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=int(width * vision.get("mlp_ratio", 4)),
        num_hidden_layers=layers,
        num_attention_heads=width // vision.get("head_width", 64),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        projection_dim=config["embed_dim"],
        hidden_act="quick_gelu" if config.get("quick_gelu") else "gelu",
    )


def random_weights(config: CLIPVisionConfig, seed: int = 0) -> dict[str, Tensor]:
    """transformers' layout, values that fp16 holds; norms near one, everything else strong enough to matter."""
    with torch.device("meta"):
        shapes = CLIPVisionModelWithProjection(config).state_dict()
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in shapes.items():
        std = 0.1 if shape.ndim < 2 or "embedding" in key else shape[0].numel() ** -0.5
        value = torch.randn(shape.shape, generator=generator) * std
        weights[key] = (value + ("norm" in key and key.endswith("weight"))).half()
    return {key: value for key, value in weights.items() if not key.endswith("position_ids")}


def to_open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in open_clip's layout."""
    names = {
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
        "vision_model.pre_layrnorm.": "ln_pre.",
        "vision_model.post_layernorm.": "ln_post.",
        "vision_model.encoder.layers.": "transformer.resblocks.",
        ".layer_norm1.": ".ln_1.",
        ".layer_norm2.": ".ln_2.",
        ".mlp.fc1.": ".mlp.c_fc.",
        ".mlp.fc2.": ".mlp.c_proj.",
        ".self_attn.out_proj.": ".attn.out_proj.",
    }
    result = {}
    for key, value in weights.items():
        if key == "visual_projection.weight":
            result["proj"] = value.T.contiguous()
        elif ".self_attn.q_proj." in key:
            parts = [weights[key.replace("q_proj", name)] for name in ("q_proj", "k_proj", "v_proj")]
            block, _, kind = key.removeprefix("vision_model.encoder.layers.").partition(".self_attn.q_proj.")
            result[f"transformer.resblocks.{block}.attn.in_proj_{kind}"] = torch.cat(parts)
        elif ".self_attn.k_proj." not in key and ".self_attn.v_proj." not in key:
            for theirs, ours in names.items():
                key = key.replace(theirs, ours)
            result[key] = value
    return result


def small_config(**values: object) -> CLIPVisionConfig:
    """No published width: only a configuration can tell heads and activation."""
    shape = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6}
    return CLIPVisionConfig(**shape | {"image_size": 64, "patch_size": 16, "projection_dim": 48} | values)
