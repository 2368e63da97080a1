"""Weights of single layers, by preset.

A preset is a rule over the attention modules in forward order (down, middle, up), as people who tune adapters by layer
count them: SD1.5 and SD2 have 16 of one layer each, SDXL has 11 with 70 layers in all. Its numbers are the base's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..method.influence import ALL
from ..method.site import Site
from .bases import BASES

FORWARD = ("down", "mid", "up")

MIDDLE_OFF = "middle off (as in older packs)"
PRESETS = tuple(dict.fromkeys(name for base in BASES for name in base.presets))
LAYER_WEIGHTS = (ALL, *PRESETS, MIDDLE_OFF)


def layer_weights(preset: str, sites: Sequence[Site]) -> dict[int, float]:
    """The weight of each of `sites`, by checkpoint index; layers of weight 0 are left out.

    Raises ValueError for an unknown preset, and for one that is not known for a base of this shape.
    """
    if preset == ALL:
        return {site.index: 1.0 for site in sites}
    if preset == MIDDLE_OFF:
        return {site.index: 1.0 for site in sites if site.place[0] != "mid"}
    if preset not in PRESETS:
        raise ValueError(f"unknown layer weights {preset!r}: choose one of {', '.join(LAYER_WEIGHTS)}")
    modules = sorted({_module(site) for site in sites}, key=lambda module: (FORWARD.index(module[0]), *module[1:]))
    known = [base for base in BASES if preset in base.presets]
    weights = next((base.presets[preset] for base in known if base.num_modules == len(modules)), None)
    if weights is None:
        raise ValueError(
            f"the layer weights {preset!r} are known for {', '.join(base.name for base in known)}; "
            f"this model has {len(modules)} attention modules: choose {ALL!r}"
        )
    by_module = {module: weights.get(number, 0.0) for number, module in enumerate(modules)}
    return {site.index: by_module[_module(site)] for site in sites if by_module[_module(site)]}


def _module(site: Site) -> tuple[Any, ...]:
    """The attention module of a UNet that a site is part of: (section, level, attention module)."""
    return site.place[:3]
