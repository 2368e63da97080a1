"""Layers of an image prompt, held to formulas: presets with their factors, texts by layer, precise swaps."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import held, host, layer_formulas, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
LayerWeights = host.part("nodes.forms.layers").LayerWeightsNode
MODULES = held.MODULES
PRESETS = (*layer_formulas.EASY, *layer_formulas.CONTENT)


def layers(preset: str = "all", composition: float = 1.0, boost: float = 1.0, by_layer: str = "") -> Any:
    return LayerWeights.execute(preset, composition, boost, by_layer).result[0]


def hold(base: str, given: Any, shares: dict[int, float], swapped: frozenset[int] = frozenset(), **more: Any) -> None:
    """One prediction of each role at weight 0.8, and it is not that of all layers alike."""
    patched = models.apply(held.model(base), held.adapter("base", base), held.prompt(), 0.8, **given)
    said = held.said(base=base, weight=0.8, shares=shares, swapped=swapped)
    is_all = set(shares.values()) == {1} and not swapped
    other = [] if is_all else [held.said(base=base, weight=0.8)]
    held.hold(f"\n{base}, {more.get('what')}", held.calls_of(patched, base), [said], base, other)


@pytest.mark.parametrize("base", MODULES)
def test_every_preset_is_listed_and_no_more(base: str) -> None:
    assert sorted(models.core.LAYER_WEIGHTS) == sorted(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("base", [pytest.param("SD15"), pytest.param("SDXL", marks=pytest.mark.slow)])
def test_a_preset_is_its_formula(base: str, preset: str) -> None:
    """The choice on Apply; a precise one with its swaps."""
    count = MODULES[base]
    shares, swapped = layer_formulas.shares(preset, count), layer_formulas.swapped(preset, count)
    hold(base, {"layers": preset}, shares, swapped, what=preset)


@pytest.mark.parametrize("preset", layer_formulas.CONTENT)
@pytest.mark.parametrize("base", [pytest.param("SD15"), pytest.param("SDXL", marks=pytest.mark.slow)])
def test_factors_of_composition_and_boost(base: str, preset: str) -> None:
    """Layer Weights with both factors, and each of them acts in the presets that have it."""
    count, c, b = MODULES[base], 0.4, 1.7
    given = {"layers": "style", "layer_weights": layers(preset, c, b)}
    shares = layer_formulas.shares(preset, count, c, b)
    hold(base, given, shares, layer_formulas.swapped(preset, count), what=f"{preset}, composition {c}, boost {b}")


TEXTS: list[tuple[str, dict[int, float]]] = [
    ("3: 0.5, 6: 1", {3: 0.5, 6: 1}),
    ("0-5: 0.2; up: 1", dict.fromkeys(range(6), 0.2) | {t: 1 for t in range(7, 16)}),
    ("down: 1\n middle : -0.5 , 2: 0", {0: 1, 1: 1, 2: 0, 3: 1, 4: 1, 5: 1, 6: -0.5}),
    ("4-4:1e-1", {4: 0.1}),
]


@pytest.mark.parametrize(("text", "shares"), TEXTS)
def test_a_text_names_modules(text: str, shares: dict[int, float]) -> None:
    hold("SD15", {"layer_weights": layers("style", by_layer=text)}, shares, what=repr(text))


def test_a_text_names_sdxls_modules() -> None:
    shares = dict.fromkeys(range(4), 0.3) | {4: 1.0} | dict.fromkeys(range(5, 11), 0.0) | {10: 2.0}
    given = layers(by_layer="down: 0.3, middle: 1, 10: 2")
    hold("SDXL", {"layer_weights": given}, shares, what="down, middle and 10")


@pytest.mark.parametrize("preset", ["style precise", "composition precise"])
def test_a_text_keeps_the_swaps_of_a_precise_preset(preset: str) -> None:
    shares = {4: 0.7, 5: 0.3, 9: 1.0}
    given = layers(preset, by_layer="4: 0.7, 5: 0.3, 9: 1")
    hold("SD15", {"layer_weights": given}, shares, layer_formulas.swapped(preset, 16), what=f"{preset}, by layer")
