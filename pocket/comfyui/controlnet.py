"""Pocket's ControlNet as CONTROL_NET: ComfyUI's class for SD1.5's, by an explicit configuration."""

from __future__ import annotations

from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import comfy.utils
import torch

from ..places import Places
from .files import read
from .model import unet_config


def load_controlnet(places: Places) -> comfy.controlnet.ControlNet:
    """Raises ValueError when the weights are not there."""
    described, weights = read(places.controlnet)
    config = unet_config(described)
    names = controlnet_names(config, len(described["conditioning_embedding_out_channels"]))
    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(
        model_params=sum(value.numel() for value in weights.values()), weight_dtype=torch.float16
    )
    manual_cast = comfy.model_management.unet_manual_cast(dtype, device)
    net = comfy.cldm.cldm.ControlNet(
        **config,
        hint_channels=described["conditioning_channels"],
        dtype=dtype,
        device=comfy.model_management.unet_offload_device(),
        operations=comfy.ops.pick_operations(dtype, manual_cast),
    )
    net.load_state_dict({_renamed(key, names): value for key, value in weights.items()}, strict=True)
    return comfy.controlnet.ControlNet(net, load_device=device, manual_cast_dtype=manual_cast)


def controlnet_names(config: dict[str, Any], num_widths: int) -> dict[str, str]:
    """Diffusers' names to ComfyUI's: whole keys of the UNet's part, modules of the ControlNet's own layers.

    num_widths: of the convolutions that read the hint; all but the last are followed by two more.
    """
    names = dict(comfy.utils.unet_to_diffusers(config))
    num_outputs = sum(config["num_res_blocks"]) + len(config["num_res_blocks"])  # the first convolution's among them
    names |= {f"controlnet_down_blocks.{number}": f"zero_convs.{number}.0" for number in range(num_outputs)}
    names["controlnet_mid_block"] = "middle_block_out.0"
    blocks = [f"blocks.{number}" for number in range(2 * (num_widths - 1))]
    for place, name in enumerate(["conv_in", *blocks, "conv_out"]):
        names[f"controlnet_cond_embedding.{name}"] = f"input_hint_block.{2 * place}"  # an activation after each
    return names


def _renamed(key: str, names: dict[str, str]) -> str:
    module, _, parameter = key.rpartition(".")
    return names[key] if key in names else f"{names[module]}.{parameter}"
