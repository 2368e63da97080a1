"""One table for each cross-attention layer: checkpoint index, ComfyUI's block, diffusers' name.

Published files count the attention layers of diffusers' UNet, self- and cross-attention alike, in the order
down, up, middle; cross-attention is odd. The table is made by walking a model's module names, so that bases of other
depths (SSD-1B and the like) need no table of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SECTIONS = {"down": "input", "up": "output", "mid": "middle"}  # diffusers' word to ComfyUI's, in checkpoint order
DIFFUSERS = re.compile(r"^(down|up|mid)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2$")
COMFYUI = re.compile(r"^(input|output|middle)_blocks?\.(\d+)\.(?:\d+\.)?transformer_blocks\.(\d+)\.attn2$")


@dataclass(frozen=True)
class Layer:
    """A cross-attention layer.

    section: down, up or mid; level: the UNet's block; attention: the attention module in it; depth: the transformer
    block in that. index: the checkpoint's number. block: what ComfyUI calls it, (section, number, depth).
    """

    section: str
    level: int
    attention: int
    depth: int
    index: int
    block: tuple[str, int, int]

    @property
    def diffusers(self) -> str:
        """The module's name in diffusers' UNet2DConditionModel."""
        block = "mid_block" if self.section == "mid" else f"{self.section}_blocks.{self.level}"
        return f"{block}.attentions.{self.attention}.transformer_blocks.{self.depth}.attn2"

    @property
    def comfyui(self) -> str:
        """The module's name in ComfyUI's UNetModel."""
        section, number, depth = self.block
        place = "middle_block.1" if section == "middle" else f"{section}_blocks.{number}.1"
        return f"{place}.transformer_blocks.{depth}.attn2"

    @property
    def module(self) -> tuple[str, int, int]:
        """The attention module that the layer is part of."""
        return self.section, self.level, self.attention


def layer_table(module_names: Iterable[str], layers_per_block: int = 2) -> list[Layer]:
    """The cross-attention layers among a UNet's module names, diffusers' or ComfyUI's, in checkpoint order.

    layers_per_block: residual blocks of a level, 2 in every published base.
    Returns an empty list for a model without such layers.
    """
    places = sorted(
        place for name in module_names if (place := _from_diffusers(name) or _from_comfyui(name, layers_per_block))
    )
    order = list(SECTIONS)
    return [
        Layer(order[section], level, attention, depth, 2 * position + 1,
              _comfyui_block(order[section], level, attention, depth, layers_per_block))
        for position, (section, level, attention, depth) in enumerate(places)
    ]  # fmt: skip


def attention_names(table: Iterable[Layer]) -> dict[int, str]:
    """ComfyUI's name of every attention layer by checkpoint index: cross-attention, and the self-attention before."""
    names = {}
    for layer in table:
        names[layer.index - 1] = layer.comfyui.removesuffix("attn2") + "attn1"
        names[layer.index] = layer.comfyui
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


def _comfyui_block(section: str, level: int, attention: int, depth: int, layers_per_block: int) -> tuple[str, int, int]:
    if section == "mid":
        return "middle", 0, depth  # ComfyUI passes 0, although the module's own number is 1
    number = level * (layers_per_block + 1) + attention
    return (SECTIONS[section], number + 1, depth) if section == "down" else (SECTIONS[section], number, depth)
