"""Every control of an image prompt against its formula: noise predictions of both roles on small UNets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import held, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
Influence, Curve = models.core.Influence, models.core.Curve
SCALINGS = ("V only", "K+V", "K+V w/ C penalty", "K+mean(V) w/ C penalty")
MERGES = ("average", "norm average", "add", "subtract", "max", "min")
BASES = ["SD15", pytest.param("SDXL", marks=pytest.mark.slow)]


def hold(what: str, inputs: dict[str, Any], said: dict[str, Any], family: str = "base", base: str = "SD15",
         pictures: int = 1, other: dict[str, Any] | None = None, **run: Any) -> None:  # fmt: skip
    """A reference with these inputs of the node is `said`; without `other`, what it differs from is the plain one."""
    of = held.prompt(pictures)
    patched = models.apply(held.model(base), held.adapter(family, base), of, **{"weight": 0.8} | inputs)
    formula = held.said(family, base, of, **{"weight": 0.8} | said)
    plain = held.said(family, base, of, **{"weight": 0.8} | (other or {}))
    held.hold(f"\n{base} {family}, {what}", held.calls_of(patched, base, **run), [formula], base, [plain])


@pytest.mark.parametrize("scaling", SCALINGS[1:])
@pytest.mark.parametrize("family", ["base", "plus"])
@pytest.mark.parametrize("base", BASES)
def test_embeds_scaling(base: str, family: str, scaling: str) -> None:
    """Two pictures side by side, so the mean of V' is of each picture's own."""
    hold(scaling, {"embeds_scaling": scaling}, {"scaling": scaling}, family, base, pictures=2)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("combine", ["concatenate", "one for each latent"])
def test_embeds_scaling_with_weights_of_pictures(combine: str, scaling: str) -> None:
    inputs = {"embeds_scaling": scaling, "combine": combine, "picture_weights": "1.5, 0, -0.5"}
    said = {"scaling": scaling, "combine": combine, "picture_weights": (1.5, 0.0, -0.5)}
    hold(f"{scaling}, {combine}, weighted", inputs, said, pictures=3, batch=3, other={"combine": combine})


@pytest.mark.parametrize("weights", ["", "1, 0.25, -0.5"])
@pytest.mark.parametrize("family", ["base", "plus"])
@pytest.mark.parametrize("combine", ["concatenate", "one for each latent", *MERGES])
def test_combine(combine: str, family: str, weights: str) -> None:
    factors = tuple(float(word) for word in weights.split(",")) if weights else ()
    plain = "average" if combine == "concatenate" else "concatenate"
    inputs = {"combine": combine, "picture_weights": weights}
    said = {"combine": combine, "picture_weights": factors}
    hold(f"{combine}, weights {weights or 'none'}", inputs, said, family, pictures=3, batch=2, other={"combine": plain})


@pytest.mark.parametrize("combine", ["average", "norm average"])
@pytest.mark.slow
def test_combine_on_sdxl(combine: str) -> None:
    hold(combine, {"combine": combine}, {"combine": combine}, "plus", "SDXL", pictures=2)


@pytest.mark.parametrize("combine", models.core.COMBINE)
@pytest.mark.parametrize("family", ["base", "plus"])
def test_one_picture_is_the_same_however_it_is_combined(family: str, combine: str) -> None:
    """Bit for bit, "no picture" too."""
    model, adapter = held.model(), held.adapter(family)
    plain, other = (models.apply(model, adapter, held.prompt(), combine=how) for how in ("concatenate", combine))
    (a,), (b,) = held.calls_of(plain), held.calls_of(other)
    assert torch.equal(a["output"], b["output"])


@pytest.mark.parametrize("negatives", [1, 2, 3])
@pytest.mark.parametrize(
    ("family", "combine"),
    [("base", how) for how in ("concatenate", "one for each latent", "average", "norm average", "subtract")]
    + [("plus", how) for how in ("concatenate", "norm average")],
)
def test_negative_pictures(family: str, combine: str, negatives: int) -> None:
    """Fewer, as many, and more than the two pictures."""
    of, negative = held.prompt(2), held.prompt(negatives, seed=9)
    patched = models.apply(held.model(), held.adapter(family), of, 0.8, combine=combine, negative=negative)
    said, plain = (held.said(family, of=of, weight=0.8, combine=combine, negative=which) for which in (negative, None))
    held.hold(f"\n{family}, {negatives} negatives, {combine}", held.calls_of(patched, batch=2), [said], other=[plain])


@pytest.mark.slow
def test_a_negative_picture_on_sdxl() -> None:
    of, negative = held.prompt(), held.prompt(1, seed=9)
    patched = models.apply(held.model("SDXL"), held.adapter("plus", "SDXL"), of, 0.8, negative=negative)
    said, plain = (held.said("plus", "SDXL", of, which, weight=0.8) for which in (negative, None))
    held.hold("\nSDXL plus, negative", held.calls_of(patched, "SDXL"), [said], "SDXL", other=[plain])


@pytest.mark.parametrize("amount", [0.3, 1.0])
@pytest.mark.parametrize("base", BASES)
def test_rescale(base: str, amount: float) -> None:
    hold(f"rescale {amount}", {"rescale": amount}, {"rescale": amount}, base=base)


def test_rescale_of_each_reference_is_to_the_texts_norm() -> None:
    """Also where another reference stands before it."""
    one, two = held.prompt(), held.prompt(1, seed=4)
    patched = models.apply(held.model(), held.adapter(), one, 0.8, rescale=0.5)
    patched = models.apply(patched, held.adapter("plus"), two, 0.6, rescale=0.9)
    said = [held.said(of=one, weight=0.8, rescale=0.5), held.said("plus", of=two, weight=0.6, rescale=0.9)]
    plain = [held.said(of=one, weight=0.8, rescale=0.5), held.said("plus", of=two, weight=0.6)]
    held.hold("\ntwo references, rescaled", held.calls_of(patched), said, other=plain)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("base", BASES)
def test_a_weight_for_each_frame(base: str, scaling: str) -> None:
    """As many as there are latents, fewer, and more; a frame of weight 0 is the base's."""
    if base == "SDXL" and scaling != "V only":
        pytest.skip("one scaling is enough for the large UNet")
    lists = [[0.2, 0.9, 0.0], [0.5, 1.1], [0.1, -0.4, 1.2, 3.0]]
    for frames in lists if scaling == "V only" and base == "SD15" else lists[-1:]:
        inputs, said = {"weight": frames, "embeds_scaling": scaling}, {"frames": tuple(frames), "scaling": scaling}
        hold(f"frames {frames}, {scaling}", inputs, said | {"weight": 1.0}, base=base, batch=3)


# Curves: the node's input, and the factor by progress.
PLACES = np.linspace(0, 1, 129)
POINTS = [(0.0, 0.1), (0.3, 1.2), (0.55, 0.4), (1.0, 0.9)]


def cubic(place: float) -> float:
    """Fritsch and Carlson's monotone cubic through POINTS, written out, read at 128 places and straight between."""
    x, y = np.array(POINTS).T
    d = np.diff(y) / np.diff(x)
    turns = [0.0 if a * b <= 0 else (a + b) / 2 for a, b in itertools.pairwise(d)]
    m = np.array([d[0], *turns, d[-1]])
    for i, slope in enumerate(d):
        length = float(np.hypot(m[i], m[i + 1]) / abs(slope))
        if length > 3:
            m[i : i + 2] *= 3 / length
    at = sorted({*PLACES.tolist(), *x.tolist()})

    def exact(p: float) -> float:
        i = min(int(np.searchsorted(x, p, side="right")) - 1, len(d) - 1)
        h = x[i + 1] - x[i]
        t = (p - x[i]) / h
        first = y[i] * (1 + 2 * t) * (1 - t) ** 2 + h * m[i] * t * (1 - t) ** 2
        return float(first + y[i + 1] * t * t * (3 - 2 * t) + h * m[i + 1] * t * t * (t - 1))

    return float(np.interp(place, at, [exact(p) for p in at]))


def linear(place: float) -> float:
    return float(np.interp(place, *np.array(POINTS).T))


def values(place: float) -> float:
    return float(np.interp(place, [0, 0.5, 1], [1.3, 0.0, 0.6]))


CURVES: dict[str, tuple[dict[str, Any], Callable[[float], float]]] = {
    "linear": ({"curve": {"points": POINTS, "interpolation": "linear"}}, linear),
    "monotone cubic": ({"curve": {"points": POINTS, "interpolation": "monotone_cubic"}}, cubic),
    "bare points": ({"curve": POINTS}, cubic),
    "a list of numbers": ({"curve_values": [1.3, 0.0, 0.6]}, values),
    "one number": ({"curve_values": 0.4}, lambda _: 0.4),
}
STEPS = (0.0, 0.23, 0.81)


def in_range(factor: Callable[[float], float], start: float, end: float) -> Callable[[float], float]:
    return lambda place: factor(place) if start <= place <= end else 0.0


@pytest.mark.parametrize("limits", [(0.0, 1.0), (0.1, 0.7)])
@pytest.mark.parametrize("kind", CURVES)
def test_a_curve(kind: str, limits: tuple[float, float]) -> None:
    inputs, factor = CURVES[kind]
    start, end = limits
    given = inputs | {"start_percent": start, "end_percent": end}
    hold(f"{kind} in {limits}", given, {"curve": in_range(factor, start, end)}, progress=STEPS)


def test_a_curve_is_read_by_sigma_and_not_by_count() -> None:
    """Heun calls the model twice a step: each call has the factor of its own sigma."""
    inputs, factor = CURVES["monotone cubic"]
    patched = models.apply(held.model(), held.adapter(), held.prompt(), **inputs)
    calls = held.calls_of(patched, progress=(0.0, 0.3, 0.6), sampler="heun")
    assert len(calls) == 5
    held.hold("\nheun", calls, [held.said(curve=factor)], other=[held.said()])


def test_a_curve_with_a_scaling_is_a_factor_of_what_is_attended() -> None:
    inputs, factor = CURVES["linear"]
    given = inputs | {"embeds_scaling": "K+V"}
    hold("curve, K+V", given, {"curve": factor, "scaling": "K+V"}, other={"curve": factor}, progress=STEPS)


@pytest.mark.slow
def test_a_curve_on_sdxl() -> None:
    inputs, factor = CURVES["linear"]
    hold("curve", inputs, {"curve": factor}, base="SDXL", progress=(0.1, 0.7))


@pytest.mark.parametrize("mask_size", [(1, 8, 8), (2, 19, 6)])
@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_a_mask_by_area(size: tuple[int, int], mask_size: tuple[int, int, int]) -> None:
    mask = torch.rand(mask_size, generator=torch.Generator().manual_seed(4))
    hold(f"mask {mask_size} on {size}", {"mask": mask}, {"mask": mask}, size=size, batch=3)


def test_two_references_with_all_their_own() -> None:
    """Different adapters, counts, layers, scalings, curves, masks and negatives."""
    one, two, negative = held.prompt(2), held.prompt(3, seed=4), held.prompt(1, seed=9)
    mask = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(4))
    inputs, factor = CURVES["linear"]
    patched = models.apply(held.model(), held.adapter(), one, 0.9, layers="ease in", embeds_scaling="K+V", mask=mask)
    more = inputs | {"combine": "max", "picture_weights": "1, 2, 1", "negative": negative, "layers": "strong middle"}
    patched = models.apply(patched, held.adapter("plus"), two, 1.3, **more)
    from tests.support.layer_formulas import shares

    said = [
        held.said(of=one, weight=0.9, shares=shares("ease in", 16), scaling="K+V", mask=mask),
        held.said("plus", of=two, negative=negative, weight=1.3, shares=shares("strong middle", 16), curve=factor,
                  combine="max", picture_weights=(1, 2, 1)),
    ]  # fmt: skip
    held.hold("\ntwo references", held.calls_of(patched, progress=STEPS), said, other=said[::-1][:1])


@pytest.mark.slow
@pytest.mark.large
def test_full_size_sd15() -> None:
    """A few modes at once on the real widths, both roles, 16 x 16 latents."""
    of, negative = held.prompt(2), held.prompt(1, seed=9)
    model, adapter = held.model(channels=320), held.adapter("plus", channels=320)
    from tests.support.layer_formulas import shares, swapped

    common: dict[str, Any] = {"of": of, "negative": negative, "channels": 320, "weight": 0.9}
    plain = held.said("plus", **common)
    for preset, scaling in (("style precise", "K+mean(V) w/ C penalty"), ("ease out", "K+V w/ C penalty")):
        inputs = {"layers": preset, "embeds_scaling": scaling, "picture_weights": "1, 0.5", "negative": negative}
        patched = models.apply(model, adapter, of, 0.9, rescale=0.4, **inputs)
        said = held.said(
            "plus", **common, shares=shares(preset, 16), swapped=swapped(preset, 16), scaling=scaling,
            picture_weights=(1, 0.5), rescale=0.4,
        )  # fmt: skip
        calls = held.calls_of(patched, size=(16, 16))
        held.hold(f"\nfull size, {preset}, {scaling}, rescaled", calls, [said], other=[plain], channels=320)
