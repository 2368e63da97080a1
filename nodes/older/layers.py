"""The weight of each attention module by the older names of weight types.

t is a module's number in forward order, L how many the older pack counted: 11 where the file has SDXL's layers, else 16.
It had no effect on the middle block, so that block is left out unless `exact` asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...ipadapter_core import AdapterSpec, Site, modules_of

EDGE, WEAK, REST, PART = 0.05, 0.2, 0.1, 0.25
SDXL_LAYER = 101  # a layer that SDXL's files have and SD1.5's have not
STYLE_PRECISE, COMPOSITION_PRECISE = "style transfer precise", "composition precise"


@dataclass(frozen=True)
class Wanted:
    """What decides the weights of the layers.

    weight_type: by its older name. composition: weight of the layers that carry composition, where a type has them
    apart. boost: of the layers that a precise type adds; None: the weight. text: "t: x, t: x" in place of the type.
    """

    weight_type: str = "linear"
    composition: float = 1.0
    boost: float | None = None
    text: str = ""


class Share(NamedTuple):
    """The weight of a layer: `of_weight` times the node's weight, and `fixed` beside it; one of the two is 0."""

    of_weight: float = 0.0
    fixed: float = 0.0


@dataclass(frozen=True)
class Base:
    """What the older pack knew of a base: L, and the modules that carry style and composition (with their parts)."""

    count: int
    style: tuple[int, ...]
    composition: Mapping[int, float]
    far: tuple[int, ...]  # of 'composition precise': what is neither style's nor composition's

    def carries(self, t: int) -> bool:
        return t in self.composition


SD15 = Base(16, (0, 1, 2, 3, *range(9, 16)), {4: PART, 5: 1.0}, (6, 7, 8))
SDXL = Base(11, (6,), {3: 1.0}, (0, 1, 2, 4, 5, 7, 8, 9, 10))


def _section(section: str) -> Callable[[str], float]:
    return lambda found: WEAK if found == section else 1.0


SECTIONS: dict[str, Callable[[str], float]] = {
    "weak input": _section("down"),
    "weak middle": _section("mid"),
    "weak output": _section("up"),
    "strong middle": lambda found: 1.0 if found == "mid" else WEAK,
}
EASINGS: dict[str, Callable[[float], float]] = {
    "ease in": lambda x: 1 - x,
    "ease out": lambda x: x,
    "ease in-out": lambda x: 1 - abs(2 * x - 1),
    "reverse in-out": lambda x: abs(2 * x - 1),
}


def base_of_file(spec: AdapterSpec) -> Base:
    """SDXL's table for files whose K' and V' read 2048-wide text, else SD1.5's; L by the layers of the file."""
    base = SDXL if spec.context_dim == 2048 else SD15
    count = SDXL.count if SDXL_LAYER in spec.layers else SD15.count
    return Base(count, base.style, base.composition, base.far)


def shares(wanted: Wanted, spec: AdapterSpec, sites: list[Site], middle: bool = False) -> dict[int, Share]:
    """The share of each site by its index; those of nothing are left out. middle: the middle block acts too.

    Raises ValueError for an unknown weight type and a text that cannot be read.
    """
    base, named = base_of_file(spec), _named(wanted.text)
    found = {}
    for index, (t, section) in modules_of(sites).items():
        if section == "mid" and not middle:
            continue
        share = Share(named.get(t, 0.0)) if named else _share(wanted, base, t, section)
        if any(share):
            found[index] = share
    return found


def swapped(wanted: Wanted, spec: AdapterSpec, sites: list[Site]) -> frozenset[int]:
    """The sites where a precise type gives the picture to the unconditional predictions, and nothing to the others."""
    if wanted.weight_type not in (STYLE_PRECISE, COMPOSITION_PRECISE):
        return frozenset()
    base, is_style = base_of_file(spec), wanted.weight_type == STYLE_PRECISE
    return frozenset(index for index, (t, _) in modules_of(sites).items() if base.carries(t) == is_style)


def composition_sites(spec: AdapterSpec, sites: list[Site]) -> frozenset[int]:
    """The sites that carry composition."""
    base = base_of_file(spec)
    return frozenset(index for index, (t, _) in modules_of(sites).items() if base.carries(t))


def _share(wanted: Wanted, base: Base, t: int, section: str) -> Share:
    kind = wanted.weight_type
    if kind in SECTIONS:
        return Share(SECTIONS[kind](section))
    if kind in EASINGS:
        return Share(EDGE + (1 - EDGE) * EASINGS[kind](t / base.count))
    if kind not in CONTENT:
        raise ValueError(f"unknown weight type {kind!r}: choose 'linear' or one of the node's list")
    return CONTENT[kind](wanted, base, t)


def _boosted(wanted: Wanted, part: float) -> Share:
    return Share(part) if wanted.boost is None else Share(fixed=part * wanted.boost)


def _style_precise(wanted: Wanted, base: Base, t: int) -> Share:
    return _boosted(wanted, base.composition[t]) if base.carries(t) else Share(float(t in base.style))


def _composition_precise(wanted: Wanted, base: Base, t: int) -> Share:
    if base.carries(t):
        return Share(base.composition[t])
    return _boosted(wanted, REST if t in base.far else 1.0)


# linear is here, because it asks for nothing.
CONTENT: dict[str, Callable[[Wanted, Base, int], Share]] = {
    "linear": lambda _, base, t: Share(1.0),
    "style transfer": lambda _, base, t: Share(float(t in base.style)),
    "composition": lambda _, base, t: Share(base.composition.get(t, 0.0)),
    "strong style transfer": lambda _, base, t: Share(float(not base.carries(t))),
    "style and composition": lambda wanted, base, t: (
        Share(fixed=base.composition[t] * wanted.composition) if base.carries(t) else Share(float(t in base.style))
    ),
    "strong style and composition": lambda wanted, base, t: (
        Share(fixed=wanted.composition) if base.carries(t) else Share(1.0)
    ),
    STYLE_PRECISE: _style_precise,
    COMPOSITION_PRECISE: _composition_precise,
}


def _named(text: str) -> dict[int, float]:
    """Weights by module from "t: x, t: x"; {} where it is blank."""
    named = {}
    for part in filter(str.strip, text.replace("\n", ",").split(",")):
        t, _, weight = part.partition(":")
        try:
            named[int(t)] = float(weight)
        except ValueError as error:
            raise ValueError(
                f"layer_weights: {part.strip()!r} cannot be read: write a layer's number, a colon and a weight, as in "
                "'3: 1, 6: 0.5'"
            ) from error
    if not all(map(math.isfinite, named.values())):
        raise ValueError(f"layer_weights {text!r} has a weight that is not finite: give numbers")
    return named
