"""The cross-attention layers of UNets: checkpoint index, place, and their names in diffusers and in ComfyUI.

Published files count the attention layers of diffusers' UNet, self- and cross-attention alike, in the order
down, up, middle; cross-attention is odd. The sites are found by walking a model's module names, so that bases of other
depths (SSD-1B and the like) need no table of their own. A site's place is (section, level, attention module, depth).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from ..method.site import Site

SECTIONS = {"down": "input", "up": "output", "mid": "middle"}  # diffusers' word to ComfyUI's, in checkpoint order
DIFFUSERS = re.compile(r"^(down|up|mid)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2$")
COMFYUI = re.compile(r"^(input|output|middle)_blocks?\.(\d+)\.(?:\d+\.)?transformer_blocks\.(\d+)\.attn2$")


def unet_sites(module_names: Iterable[str], layers_per_block: int | Sequence[int] = 2) -> list[Site]:
    """The cross-attention layers among a UNet's module names, diffusers' or ComfyUI's, in the published order.

    layers_per_block: residual blocks of a level, 2 in every published base; a list of one number for each level, as
    ComfyUI and diffusers may keep it, counts by its first.
    Returns an empty list for a model without such layers.
    """
    blocks = layers_per_block if isinstance(layers_per_block, int) else layers_per_block[0]
    places = sorted(place for name in module_names if (place := _from_diffusers(name) or _from_comfyui(name, blocks)))
    order = list(SECTIONS)
    return [
        _site(2 * position + 1, blocks, order[section], *numbers) for position, (section, *numbers) in enumerate(places)
    ]


def comfyui_block(site: Site) -> tuple[str, int, int]:
    """What ComfyUI calls a UNet's layer when it looks up a patch: (section, number, depth)."""
    match = COMFYUI.match(site.comfyui)
    assert match, f"{site.comfyui} is a layer of ComfyUI's UNet"
    section, number, depth = match[1], int(match[2]), int(match[3])
    return section, 0 if section == "middle" else number, depth  # it passes 0, although the module's number is 1


def attention_names(sites: Iterable[Site], of: Literal["comfyui", "diffusers"] = "comfyui") -> dict[int, str]:
    """The names of all attention layers by checkpoint index: cross-attention, and the self-attention before each.

    of: whose names, ComfyUI's or diffusers'.
    """
    names = {}
    for site in sites:
        name = site.comfyui if of == "comfyui" else site.diffusers
        names[site.index - 1] = name.removesuffix("attn2") + "attn1"
        names[site.index] = name
    return names


def _from_diffusers(name: str) -> tuple[int, int, int, int] | None:
    if not (match := DIFFUSERS.match(name)):
        return None
    section, level, attention, depth = match.groups()
    return list(SECTIONS).index(section), int(level or 0), int(attention), int(depth)


def _from_comfyui(name: str, layers_per_block: int) -> tuple[int, int, int, int] | None:
    if not (match := COMFYUI.match(name)):
        return None
    section, number, depth = match[1], int(match[2]), int(match[3])
    place = list(SECTIONS.values()).index(section)
    if section == "middle":
        return place, 0, 0, depth
    # Input block 0 is the first convolution, and each level ends with a downsampling; an upward level has one more.
    start = 1 if section == "input" else 0
    level, attention = divmod(number - start, layers_per_block + 1)
    return place, level, attention, depth


def _site(index: int, layers_per_block: int, section: str, level: int, attention: int, depth: int) -> Site:
    number = level * (layers_per_block + 1) + attention + (section == "down")
    level_name = "mid_block" if section == "mid" else f"{section}_blocks.{level}"
    comfyui = "middle_block.1" if section == "mid" else f"{SECTIONS[section]}_blocks.{number}.1"
    return Site(
        index,
        (section, level, attention, depth),
        f"{level_name}.attentions.{attention}.transformer_blocks.{depth}.attn2",
        f"{comfyui}.transformer_blocks.{depth}.attn2",
    )
