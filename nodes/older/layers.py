"""The weight of each layer by the older names of weight types: the core's presets, without the middle block.

The older pack had no effect on the middle block, so that block is left out unless `exact` asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ...ipadapter_core import ALL, Layers, Site, layer_weights, module_numbers, swapped_layers

STYLE_PRECISE, COMPOSITION_PRECISE = "style transfer precise", "composition precise"
STYLE_AND_COMPOSITION = ("style and composition", "strong style and composition")
MIDDLE = "mid"  # the section of a site
CORE_STYLE_PRECISE = "style precise"
# Older names to the core's presets.
PRESETS = {
    "linear": ALL,
    "style transfer": "style",
    "composition": "composition",
    "strong style transfer": "strong style",
    "style and composition": "style + composition",
    "strong style and composition": "strong style + composition",
    STYLE_PRECISE: CORE_STYLE_PRECISE,
    COMPOSITION_PRECISE: "composition precise",
    **{
        name: name
        for name in (
            "ease in", "ease out", "ease in-out", "reverse in-out", "weak input", "weak middle", "weak output",
            "strong middle",
        )
    },
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What decides the weights of the layers.

    weight_type: by its older name. composition: weight of the layers that carry composition, where a type has them
    apart. boost: of the layers that a precise type adds; None: the weight. text: "t: x, t: x" in place of the type, t
    the attention modules in forward order. middle: the middle block acts too.
    """

    weight_type: str = "linear"
    composition: float = 1.0
    boost: float | None = None
    text: str = ""
    middle: bool = False

    @property
    def preset(self) -> str:
        """Raises ValueError for an unknown weight type."""
        if self.weight_type not in PRESETS:
            raise ValueError(f"unknown weight type {self.weight_type!r}: choose one of {', '.join(PRESETS)}")
        return PRESETS[self.weight_type]


class Share(NamedTuple):
    """The weight of a layer: `of_weight` times the node's weight, or `fixed`; the other one is 0."""

    of_weight: float = 0.0
    fixed: float = 0.0


def shares(wanted: Wanted, sites: list[Site]) -> dict[int, Share]:
    """The share of each site by its index; those of nothing are left out.

    Raises ValueError for an unknown weight type, and for a text that cannot be read.
    """
    if named := Layers(text=wanted.text).named():
        found = {index: Share(named.get(t, 0.0)) for index, t in module_numbers(sites).items()}
    else:
        found = _of_type(wanted, sites)
    middle = {site.index for site in sites if site.place[0] == MIDDLE}
    return {index: share for index, share in found.items() if any(share) and (wanted.middle or index not in middle)}


def _of_type(wanted: Wanted, sites: list[Site]) -> dict[int, Share]:
    found = layer_weights(wanted.preset, sites)
    kind, own = wanted.weight_type, None
    apart: frozenset[int] = frozenset()
    if kind in STYLE_AND_COMPOSITION:
        apart, own = carriers(sites), wanted.composition
    elif kind in (STYLE_PRECISE, COMPOSITION_PRECISE) and wanted.boost is not None:
        is_style = kind == STYLE_PRECISE
        apart = frozenset(index for index in found if (index in carriers(sites)) == is_style)
        own = wanted.boost
    return {
        index: Share(fixed=share * own) if index in apart and own is not None else Share(share)
        for index, share in found.items()
    }


def swapped(wanted: Wanted, sites: list[Site]) -> frozenset[int]:
    """The sites where a precise type gives the picture to the unconditional predictions, and nothing to the others."""
    return swapped_layers(wanted.preset, sites)


def carriers(sites: list[Site]) -> frozenset[int]:
    """The sites that carry composition."""
    return swapped_layers(CORE_STYLE_PRECISE, sites)
