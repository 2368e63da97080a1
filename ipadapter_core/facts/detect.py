"""Which adapter a file holds, found by its keys and shapes alone (`layouts` has a function a family)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from ..method.spec import AdapterSpec
from .bases import NAMES
from .families import read_layout
from .layouts import Layout
from .lora import LORA_KEY

TO_K = re.compile(r"ip_adapter\.(\d+)\.to_k_ip\.weight$")
LONGEST = 80  # characters of a key in a sentence


class HasShape(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


# What people put in place of an adapter: (a key's pattern, what it is, what to do).
STRANGERS = [
    (r"^ip_adapter_proj_model\.", "a FLUX adapter", "this pack runs adapters for UNet models"),
    (r"^(lora_|lycoris_)|[._]lora\d?[._](up|down|A|B)\.", "a LoRA", "load it with ComfyUI's LoRA loader"),
    (r"^model\.diffusion_model\.|^cond_stage_model\.", "a full checkpoint", "load it with Load Checkpoint"),
    (r"^control_model\.|controlnet_|zero_convs\.|^controlnet", "a ControlNet", "load it with Load ControlNet Model"),
    (r"^(adapter\.)?body\.0\.", "a T2I-Adapter", "load it with Load ControlNet Model"),
    (r"^(vision_model|visual)\.", "an image encoder", "put it in models/clip_vision"),
    (r"^(first_stage_model|decoder|encoder)\.", "a VAE", "load it with Load VAE"),
    (r"^(text_model|transformer\.text_model)\.", "a text encoder", "load it with Load CLIP"),
    (r"^(double|joint|transformer)_blocks\.", "a diffusion transformer", "load it with Load Diffusion Model"),
    (r"^(input_blocks|down_blocks|up_blocks|conv_in)", "a UNet alone", "load it with Load Diffusion Model"),
]


def detect(state_dict: Mapping[str, HasShape]) -> AdapterSpec:
    """Tell family, widths, tokens and layers of a flattened adapter (`image_proj.*`, `ip_adapter.*`).

    Only keys and shapes are read, so shapes without data will do. What they cannot tell is left at its default:
    `resolve_variant` asks the file's metadata and the user.
    Raises ValueError when the file is not an adapter, or of a family that this version does not run.
    """
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    layers = _layers(shapes)
    if any(index % 2 == 0 for index in layers):  # a UNet's cross-attention is odd; transformers count on without gaps
        raise ValueError(
            "this file is a FLUX or SD3.5 adapter, a family that this version does not run: choose one for a UNet "
            f"model ({NAMES})"
        )
    proj = {key.removeprefix("image_proj."): shape for key, shape in shapes.items() if key.startswith("image_proj.")}
    try:
        found = read_layout(
            Layout(
                proj=proj,
                context_dim=shapes[f"ip_adapter.{layers[0]}.to_k_ip.weight"][1],
                layers=layers,
                has_lora=any(LORA_KEY.match(key) for key in shapes),
                has_text_projection="encoder_hid_proj.weight" in shapes,
            )
        )
    except (IndexError, ValueError, ZeroDivisionError) as error:  # not a matrix
        raise ValueError("the adapter's weights have shapes that no adapter has: download it again") from error
    if found is None:
        raise ValueError(
            f"the adapter's projection is of an unknown kind (found {_some(proj)}): "
            "expected a linear, MLP, resampler or identity projection; please report the file's name"
        )
    return found


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    indices = {int(match[1]) for key in shapes if (match := TO_K.match(key))}
    if not indices or not any(key.startswith("image_proj.") for key in shapes):
        raise ValueError(_what_it_is_instead(shapes))
    return tuple(sorted(indices))


def _what_it_is_instead(keys: Mapping[str, object]) -> str:
    if any(TO_K.match(key) for key in keys):
        return (
            "this file holds K' and V' alone (ip_adapter.*, as save_attn_procs writes them), without the projection of "
            "the picture (image_proj.*): choose the whole checkpoint of its training (pytorch_model.bin or so)"
        )
    for pattern, name, action in STRANGERS:
        if any(re.search(pattern, key) for key in keys):
            return f"this file is {name}, not an IP-Adapter: {action}"
    if any(key.startswith("image_proj.") for key in keys):
        return (
            "this file holds image_proj.* alone, without K' and V' (ip_adapter.*): it is a part of an adapter, or a "
            "simple adapter that was trained with appended attention: choose one with decoupled attention"
        )
    return (
        f"this file is not an IP-Adapter: found the keys {_some(keys)}, expected image_proj.* and ip_adapter.*: "
        "choose an adapter file (.safetensors or .bin)"
    )


def _some(keys: Mapping[str, object]) -> str:
    names = [key if len(key) < LONGEST else f"{key[:LONGEST]}..." for key in sorted(keys)]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"
