"""Which adapter a file holds, told by its keys and shapes alone. The only place that looks at keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from .spec import AdapterSpec, LinearProjection, ResamplerProjection

HEAD_WIDTH = 64  # of every published resampler


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

    Only keys and shapes are read, so shapes without data will do.
    Raises ValueError when the file is no adapter, or of a family that this version does not run.
    """
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    layers = _layers(shapes)
    context_dim = shapes[f"ip_adapter.{layers[0]}.to_k_ip.weight"][1]
    proj = {key.removeprefix("image_proj."): shape for key, shape in shapes.items() if key.startswith("image_proj.")}

    _refuse_unsupported(shapes, proj, layers)
    if {"latents", "proj_in.weight", "layers.0.0.to_q.weight", "layers.0.1.1.weight"} <= proj.keys():
        _, num_tokens, width = proj["latents"]
        return AdapterSpec(
            family="plus",
            feature="penultimate",
            feature_dim=proj["proj_in.weight"][1],
            context_dim=context_dim,
            num_tokens=num_tokens,
            layers=layers,
            projection=ResamplerProjection(
                width=width,
                depth=len({key.split(".")[1] for key in proj if key.startswith("layers.")}),
                num_heads=proj["layers.0.0.to_q.weight"][0] // HEAD_WIDTH,
                ff_width=proj["layers.0.1.1.weight"][0],
            ),
        )
    if "proj.weight" in proj and "norm.weight" in proj:
        rows, feature_dim = proj["proj.weight"]
        return AdapterSpec(
            family="base",
            feature="pooled",
            feature_dim=feature_dim,
            context_dim=context_dim,
            num_tokens=rows // context_dim,
            layers=layers,
            projection=LinearProjection(),
        )
    raise ValueError(
        f"the adapter's projection is of an unknown kind (found {_some(proj)}): "
        "expected a linear or a resampler projection; please report the file's name"
    )


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    indices = {int(match[1]) for key in shapes if (match := re.match(r"ip_adapter\.(\d+)\.to_k_ip\.weight$", key))}
    if not indices or not any(key.startswith("image_proj.") for key in shapes):
        raise ValueError(_what_it_is_instead(shapes))
    return tuple(sorted(indices))


def _what_it_is_instead(keys: Mapping[str, object]) -> str:
    for pattern, name, action in STRANGERS:
        if any(re.search(pattern, key) for key in keys):
            return f"this file is {name}, not an IP-Adapter: {action}"
    if keys and all(key.startswith("image_proj.") for key in keys):
        return (
            "this file holds image_proj.* alone, without K' and V' (ip_adapter.*): it is a part of an adapter, or a "
            "simple adapter that was trained with appended attention: choose one with decoupled attention"
        )
    return (
        f"this file is not an IP-Adapter: found the keys {_some(keys)}, expected image_proj.* and ip_adapter.*: "
        "choose an adapter file (.safetensors or .bin)"
    )


def _refuse_unsupported(
    shapes: Mapping[str, object], proj: Mapping[str, tuple[int, ...]], layers: tuple[int, ...]
) -> None:
    name = None
    if any(index % 2 == 0 for index in layers):  # a UNet's cross-attention is odd; transformers count on without gaps
        name = "FLUX or SD3.5"
    elif any("_lora." in key for key in shapes) or any(key.startswith("perceiver_resampler.") for key in proj):
        name = "FaceID"
    elif "proj.0.weight" in proj and "proj.3.weight" in proj:
        name = "full-face"
    elif "proj.0.weight" in proj or proj.get("proj_in.weight", (0, 0))[1] == 512:
        name = "FaceID portrait"
    if name:
        raise ValueError(
            f"this file is a {name} adapter, a family that this version does not run: choose a base or plus adapter"
        )


def _some(keys: Mapping[str, object]) -> str:
    names = sorted(keys)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"
