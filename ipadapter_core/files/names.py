"""The published names of an adapter's weights, for the names that trainers write.

A checkpoint of the reference's trainer holds the whole module: the UNet with the adapter's attention processors in it,
the projection, and the processors once more as a list. safetensors keeps shared weights once, so that they may have
either name; a list's numbers are the published ones, and those of a UNet's names follow from its layers (`facts.unet`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..facts.unet import attention_names, unet_sites

# Other names of the two groups.
ALIASES = {"image_proj_model": "image_proj", "adapter_modules": "ip_adapter", "layers": "ip_adapter"}
OWN = re.compile(r"^(?:image_proj\.|ip_adapter\.\d+\.|encoder_hid_proj\.(?:weight|bias)$)")
# What is put around all of it: DDP, DeepSpeed, torch.compile, Lightning, and people's own dictionaries.
WRAPPERS = "module|model|state_dict|model_state_dict|ip_adapter"
WRAPPED = re.compile(rf"^(?:(?:{WRAPPERS})\.)+(?=(?:image_proj|image_proj_model|ip_adapter|adapter_modules|unet)\.)")
NUMBERED = re.compile(r"^(?:adapter_modules|ip_adapter|layers)\.(?:\d+)\.to_(?:k|v|q|out)_(?:ip|lora)\.")
BLOCK = re.compile(
    r"(?:^|\.)((?:(?:down|up)_blocks\.\d+|mid_block)\.attentions\.\d+\.transformer_blocks\.\d+\.attn)([12])\.(.*)"
)
# Of a processor; diffusers numbers the adapters that a model has ("to_k_ip.0.weight").
PART = re.compile(r"^processor\.(to_[kv]_ip|to_(?:q|k|v|out)_lora\.(?:up|down))(?:\.(\d+))?\.weight$")
# diffusers' own names of the base family's projection.
PROJECTION = re.compile(r"(?:^|\.)encoder_hid_proj\.image_projection_layers\.0\.(image_embeds|norm)\.(weight|bias)$")


def published_names(keys: Iterable[str]) -> dict[str, str]:
    """Published name to the file's name for it. Of a file with a UNet in it, what is not the adapter's is left out.

    Raises ValueError when a UNet has several adapters.
    """
    names = {key: _unwrapped(key) for key in keys}
    numbers = _numbers(names.values())
    plain = {_canonical(name): key for key, name in names.items()}
    of_unet = {target: key for key, name in names.items() if (target := _in_unet(name, numbers))}
    if not any(".to_k_ip." in name for name in (*plain, *of_unet)):
        return plain
    if of_unet or any(name.startswith("unet.") for name in plain):  # the list's names before the UNet's
        return of_unet | {name: key for name, key in plain.items() if OWN.match(name)}
    return plain


def _unwrapped(key: str) -> str:
    return WRAPPED.sub("", key.replace("_orig_mod.", ""))


def _canonical(name: str) -> str:
    group, _, rest = name.partition(".")
    if group not in ALIASES or not rest or (group == "layers" and not NUMBERED.match(name)):
        return name
    return f"{ALIASES[group]}.{rest}"


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """The published number of each attention layer of the UNet that the names are of."""
    blocks = {match[1] for name in names if (match := BLOCK.search(name))}
    sites = unet_sites(f"{block}2" for block in blocks)
    return {name: number for number, name in attention_names(sites, "diffusers").items()}


def _in_unet(name: str, numbers: dict[str, int]) -> str | None:
    """The published name of a weight that is in a UNet; None where it is no part of an adapter."""
    if match := PROJECTION.search(name):
        return f"image_proj.{'proj' if match[1] == 'image_embeds' else 'norm'}.{match[2]}"
    block = BLOCK.search(name)
    part = block and PART.match(block[3])
    number = numbers.get(block[1] + block[2]) if block else None  # None: no UNet's own way to write a number
    if not part or number is None:
        return None
    if part[2] not in (None, "0"):
        raise ValueError("the file holds a UNet with several adapters: save each in a file of its own")
    return f"ip_adapter.{number}.{part[1]}.weight"
