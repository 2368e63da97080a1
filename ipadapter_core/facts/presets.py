"""Weights of single layers, by preset or by text.

A preset is a rule over the attention modules in forward order; t is a module's number and L how many there are. What a
module carries, style or composition, is the base's row. The rules are those that people know from the most used ComfyUI
pack by these names, with the middle block in them, which never runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..method.layers import ALL, Layers
from ..method.site import Site
from .bases import BASES, Base

FORWARD = ("down", "mid", "up")
WORDS = {"down": "down", "mid": "middle", "up": "up"}  # a site's section to what a user writes
EDGE, WEAK, REST = 0.05, 0.2, 0.1  # the least of an easing, of a weak section, and of what a precise preset leaves
MIDDLE_OFF = "middle off (as in older packs)"


class _Module(NamedTuple):
    """One attention module of a model: its number t, of how many there are, and its section."""

    t: int
    of: int
    section: str


def _eased(ramp: Callable[[float], float]) -> Callable[[_Module], float]:
    return lambda module: EDGE + (1 - EDGE) * ramp(module.t / module.of)


def _weak(*sections: str) -> Callable[[_Module], float]:
    return lambda module: WEAK if module.section in sections else 1.0


# Rules that hold for any model.
SHAPES: dict[str, Callable[[_Module], float]] = {
    ALL: lambda _: 1.0,
    "ease in": _eased(lambda x: 1 - x),
    "ease out": _eased(lambda x: x),
    "ease in-out": _eased(lambda x: 1 - abs(2 * x - 1)),
    "reverse in-out": _eased(lambda x: abs(2 * x - 1)),
    "weak input": _weak("down"),
    "weak middle": _weak("mid"),
    "weak output": _weak("up"),
    "strong middle": _weak("down", "up"),
    MIDDLE_OFF: lambda module: float(module.section != "mid"),
}


def _composition(base: Base, t: int, layers: Layers) -> float:
    return base.composition.get(t, 0.0)


def _style_and_composition(base: Base, t: int, layers: Layers) -> float:
    return base.composition[t] * layers.composition if t in base.composition else float(t in base.style)


def _style_precise(base: Base, t: int, layers: Layers) -> float:
    return base.composition[t] * layers.boost if t in base.composition else float(t in base.style)


def _composition_precise(base: Base, t: int, layers: Layers) -> float:
    return base.composition.get(t, layers.boost * (1.0 if t in base.style else REST))


# Rules for bases of which it is known what their modules carry.
STYLE_PRECISE, COMPOSITION_PRECISE = "style precise", "composition precise"
CONTENT: dict[str, Callable[[Base, int, Layers], float]] = {
    "style": lambda base, t, _: float(t in base.style),
    "composition": _composition,
    "style + composition": _style_and_composition,
    "strong style": lambda base, t, _: float(t not in base.composition),
    "strong style + composition": lambda base, t, layers: layers.composition if t in base.composition else 1.0,
    STYLE_PRECISE: _style_precise,
    COMPOSITION_PRECISE: _composition_precise,
}
LAYER_WEIGHTS = (ALL, *CONTENT, *(name for name in SHAPES if name != ALL))


def layer_weights(layers: str | Layers, sites: Sequence[Site]) -> dict[int, float]:
    """The share of the weight of each of `sites`, by checkpoint index; layers of share 0 are left out.

    Raises ValueError for an unknown preset, for one that is not known for a base of this shape, and for a text that
    names a module that this model does not have.
    """
    layers = Layers(layers) if isinstance(layers, str) else layers
    modules = _modules(sites)
    shares = _named(layers, list(modules.values())) or _of_preset(layers, list(modules.values()))
    return {site.index: share for site in sites if (share := shares[modules[_place(site)].t])}


def swapped_layers(layers: str | Layers, sites: Sequence[Site]) -> frozenset[int]:
    """The sites, by checkpoint index, where a precise preset pushes content away: the picture acts in unconditional
    predictions, and conditional ones get nothing."""
    layers = Layers(layers) if isinstance(layers, str) else layers
    if layers.preset not in (STYLE_PRECISE, COMPOSITION_PRECISE):
        return frozenset()
    modules = _modules(sites)
    carries = _known_base(layers.preset, len(modules)).composition
    is_style = layers.preset == STYLE_PRECISE
    return frozenset(site.index for site in sites if (modules[_place(site)].t in carries) == is_style)


def layer_words(shares: dict[int, float], sites: Sequence[Site]) -> str:
    """The layers that these shares mean, for people: "0-3: 1, 9-15: 1 of 16 attention modules (0-5 down, ...)"."""
    modules = _modules(sites)
    of_module = {modules[_place(site)].t: shares.get(site.index, 0.0) for site in sites}
    sections: dict[str, list[int]] = {}
    for module in modules.values():
        sections.setdefault(module.section, []).append(module.t)
    where = ", ".join(f"{_span(ts)} {WORDS.get(section, section)}" for section, ts in sections.items())
    runs: list[tuple[list[int], float]] = []
    for t, share in sorted(of_module.items()):  # sites are in checkpoint order, which has the middle last
        if runs and runs[-1][1] == share:
            runs[-1][0].append(t)
        else:
            runs.append(([t], share))
    said = ", ".join(f"{_span(ts)}: {share:.3g}" for ts, share in runs if share)
    return f"layers {said or 'none'} of {len(modules)} ({where})"


def module_numbers(sites: Sequence[Site]) -> dict[int, int]:
    """The number of the attention module that each site is part of, by checkpoint index."""
    modules = _modules(sites)
    return {site.index: modules[_place(site)].t for site in sites}


def _span(ts: Sequence[int]) -> str:
    return str(ts[0]) if len(ts) == 1 else f"{ts[0]}-{ts[-1]}"


def _place(site: Site) -> tuple[Any, ...]:
    """The attention module that a site is part of: (section, level, attention module) in a UNet."""
    return site.place[:3]


def _modules(sites: Sequence[Site]) -> dict[tuple[Any, ...], _Module]:
    """The attention modules by place, in forward order; sections of a transformer come in the sites' own order."""
    order = list(dict.fromkeys((*FORWARD, *(str(site.place[0]) for site in sites))))
    places = sorted({_place(site) for site in sites}, key=lambda place: (order.index(place[0]), *place[1:]))
    return {place: _Module(t, len(places), place[0]) for t, place in enumerate(places)}


def _named(layers: Layers, modules: Sequence[_Module]) -> dict[int, float] | None:
    """Shares by module as a text names them; None where it is blank."""
    named = layers.named()
    if not named:
        return None
    shares = dict.fromkeys(range(len(modules)), 0.0)
    for name, share in named.items():
        found = [module.t for module in modules if name in (module.t, WORDS.get(module.section))]
        if not found:
            raise ValueError(
                f"the layer weights name {name!r}, and this model has the attention modules 0 to {len(modules) - 1}: "
                "name some of these"
            )
        shares |= dict.fromkeys(found, share)
    return shares


def _of_preset(layers: Layers, modules: Sequence[_Module]) -> dict[int, float]:
    if layers.preset in SHAPES:
        return {module.t: SHAPES[layers.preset](module) for module in modules}
    if layers.preset not in CONTENT:
        raise ValueError(f"unknown layer weights {layers.preset!r}: choose one of {', '.join(LAYER_WEIGHTS)}")
    base = _known_base(layers.preset, len(modules))
    return {module.t: CONTENT[layers.preset](base, module.t, layers) for module in modules}


def _known_base(preset: str, num_modules: int) -> Base:
    """The first base of this shape. Raises ValueError where none is known."""
    found = next((base for base in BASES if base.num_modules == num_modules), None)
    if found is None:
        raise ValueError(
            f"the layer weights {preset!r} are known for {', '.join(base.name for base in BASES)}; "
            f"this model has {num_modules} attention modules: choose {ALL!r}"
        )
    return found
