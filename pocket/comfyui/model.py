"""Pocket's UNet as MODEL: ComfyUI's SD1.5 with an explicit configuration; published ones are told by their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import torch

from ..places import Places
from .files import read


class Pocket(comfy.supported_models.SD15):
    """SD1.5's noise schedule and prediction; latents need no scale."""

    unet_config: dict[str, Any] = {}
    unet_extra_config: dict[str, Any] = {}
    latent_format = comfy.latent_formats.LatentFormat


def load_model(places: Places) -> comfy.model_patcher.ModelPatcher:
    """Raises ValueError when the weights are not there."""
    described, weights = read(places.base / "unet")
    config = unet_config(described)
    names = comfy.utils.unet_to_diffusers(config)
    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(
        model_params=sum(value.numel() for value in weights.values()), weight_dtype=torch.float16
    )
    pocket = Pocket(config)
    pocket.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, device))
    offload = comfy.model_management.unet_offload_device()
    model = pocket.get_model({}, device=offload)
    # CoreModelPatcher is looked up at call time: dynamic VRAM rebinds it.
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload)
    model.diffusion_model.load_state_dict(
        {names[key]: value for key, value in weights.items()}, strict=True, assign=patcher.is_dynamic()
    )
    return patcher


def unet_config(described: Mapping[str, Any]) -> dict[str, Any]:
    """ComfyUI's words for what diffusers' config.json of a UNet, or of a ControlNet for it, says."""
    widths, layers = described["block_out_channels"], described["layers_per_block"]
    depths = [int(kind.startswith("CrossAttn")) for kind in described["down_block_types"]]
    return {
        "image_size": 32,
        "in_channels": described["in_channels"],
        "out_channels": described.get("out_channels", 4),
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [layers] * len(widths),
        "transformer_depth": [depth for depth in depths for _ in range(layers)],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [depth for depth in depths for _ in range(layers + 1)],
        "context_dim": described["cross_attention_dim"],
        "num_heads": described["attention_head_dim"],  # in SD1.5's configs too, this is the number of heads
        "num_head_channels": -1,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
        "adm_in_channels": None,
        "legacy": False,
    }
