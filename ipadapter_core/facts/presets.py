"""Weights of single layers, by preset.

A preset is a rule over the attention modules in forward order (down, middle, up), as people who tune adapters by layer
count them: SD1.5 and SD2 have 16 of one layer each, SDXL has 11 with 70 layers in all. Its numbers are the base's.
"""

from __future__ import annotations

from collections.abc import Sequence

from .bases import BASES
from .unet import Layer

FORWARD = ("down", "mid", "up")

ALL = "all"
MIDDLE_OFF = "middle off (as in older packs)"
PRESETS = tuple(dict.fromkeys(name for base in BASES for name in base.presets))
LAYER_WEIGHTS = (ALL, *PRESETS, MIDDLE_OFF)


def layer_weights(preset: str, table: Sequence[Layer]) -> dict[int, float]:
    """The weight of each layer of `table`, by checkpoint index; layers of weight 0 are left out.

    Raises ValueError for an unknown preset, and for one that is not known for a base of this shape.
    """
    if preset == ALL:
        return {layer.index: 1.0 for layer in table}
    if preset == MIDDLE_OFF:
        return {layer.index: 1.0 for layer in table if layer.section != "mid"}
    if preset not in PRESETS:
        raise ValueError(f"unknown layer weights {preset!r}: choose one of {', '.join(LAYER_WEIGHTS)}")
    modules = sorted({layer.module for layer in table}, key=lambda module: (FORWARD.index(module[0]), *module[1:]))
    known = [base for base in BASES if preset in base.presets]
    weights = next((base.presets[preset] for base in known if base.num_modules == len(modules)), None)
    if weights is None:
        raise ValueError(
            f"the layer weights {preset!r} are known for {', '.join(base.name for base in known)}; "
            f"this model has {len(modules)} attention modules: choose {ALL!r}"
        )
    by_module = {module: weights.get(number, 0.0) for number, module in enumerate(modules)}
    return {layer.index: by_module[layer.module] for layer in table if by_module[layer.module]}
