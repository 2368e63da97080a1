"""What docs/controls shows, as a table: for each control its values, references and what becomes of them."""

from __future__ import annotations

import dataclasses

from ipadapter_core import Curve, Layers, frame_weights
from ipadapter_core.facts.presets import MIDDLE_OFF
from ipadapter_core.method.combine import MERGES
from ipadapter_core.method.scaling import K_AND_MEAN_V_PENALTY, K_AND_V, K_AND_V_PENALTY, V_ONLY

from ...world.settings import HALF_WEIGHT, TEXT_WEIGHT
from ..orders import FINE, GLOBAL, Order
from ..prompt import (
    LOWER_LEFT,
    LOWER_RIGHT,
    OPPOSITE,
    REFERENCE,
    SECOND,
    THIRD,
    UPPER,
    Prompt,
)
from .curves import CURVES
from .negatives import WEAK
from .regions import ORDERS as REGIONS

COUNT = 4  # references of a strip: the first of development
Strip = dict[str, "str | Order"]  # label of a row to whose pictures it has, or to what is made
BOTH = (REFERENCE, SECOND)
FRAMES = 8


def with_text(adapter: str = FINE, **values: object) -> Order:
    """Beside a text that names another shape."""
    return Order(COUNT, adapter, names_shape=True, prompts=(Prompt(**values),))  # type: ignore[arg-type]


def alone(adapter: str = FINE, **values: object) -> Order:
    """With an empty text."""
    return Order(COUNT, adapter, prompts=(Prompt(**values),))  # type: ignore[arg-type]


def short(order: Order) -> Order:
    return dataclasses.replace(order, count=COUNT)


ADAPTERS = {"no adapter": Order(COUNT), GLOBAL: alone(GLOBAL), FINE: alone()}
WEIGHT = {f"{weight:g}": with_text(weight=weight) for weight in (0.0, 0.25, 0.55, 0.8, 1.0, 1.5)}
LAYERS = {
    name.split(" (")[0].replace(" ", "\n"): with_text(GLOBAL, layers=Layers(name))
    for name in ("all", "weak input", "weak middle", "weak output", "strong middle", "ease in", "ease out", MIDDLE_OFF)
}
BY_LAYER = {f"{t}: 1": with_text(GLOBAL, layers=Layers(text=f"{t}: 1")) for t in range(7)}
CURVE = {
    name.replace(", ", "\n").replace(" in the ", " in\n"): with_text(weight=TEXT_WEIGHT, curve=curve)
    for name, curve in CURVES.items()
}
RANGE = {
    f"{start:g} to {end:g}": with_text(curve=Curve.window(start, end))
    for start, end in ((0, 1), (0, 0.3), (0, 0.6), (0.1, 1), (0.3, 1), (0.6, 1))
}
MASK = {"no mask": alone(weight=HALF_WEIGHT)} | {
    part.replace(" ", "\n"): alone(weight=HALF_WEIGHT, part=part) for part in (UPPER, LOWER_LEFT, LOWER_RIGHT)
}
COMBINE = {
    how.replace(" ", "\n"): alone(sources=BOTH, combine=how)
    for how in ("concatenate", *MERGES)
} | {f"average\n{one:g}, {two:g}": alone(sources=BOTH, combine="average", picture_weights=(one, two))
     for one, two in ((1, 0.4), (0.4, 1))}  # fmt: skip
NEGATIVE = {
    "both\npictures": alone(GLOBAL, sources=(REFERENCE, OPPOSITE)),
    "both,\nnegative": alone(GLOBAL, sources=(REFERENCE, OPPOSITE), negative=OPPOSITE),
    f"text and\nreference\n{WEAK:g}": with_text(GLOBAL, weight=WEAK),
    "the same,\nnegative": with_text(GLOBAL, weight=WEAK, negative=OPPOSITE),
}
SCALING = {
    f"{name}\n{weight:g}".replace(" w/ C penalty", "\npenalty"): with_text(GLOBAL, weight=weight, scaling=scaling)
    for name, scaling, weights in (
        ("V only", V_ONLY, (1, 2)),
        ("K+V", K_AND_V, (1, 2)),
        ("K+V w/ C penalty", K_AND_V_PENALTY, (1, 8)),
        ("K+mean(V) w/ C penalty", K_AND_MEAN_V_PENALTY, (1, 8)),
    )
    for weight in weights
}
RESCALE = {
    f"weight {weight:g}\nrescale {rescale:g}": with_text(GLOBAL, weight=weight, rescale=rescale)
    for weight, rescale in ((1, 0), (1, 1), (2, 0), (2, 0.5), (2, 1), (3, 0), (3, 1))
}
OVER_FRAMES = {
    f"{frame}: {weight:.2f}": with_text(weight=weight)
    for frame, weight in enumerate(frame_weights("0: 0, 7: 1.2", FRAMES, "ease in-out"))
}
STRIPS: dict[str, Strip] = {
    "adapters": {"reference": REFERENCE} | ADAPTERS,
    "weight": {"reference": REFERENCE} | WEIGHT,
    "layers": {"reference": REFERENCE} | LAYERS,
    "layer_weights": {"reference": REFERENCE} | BY_LAYER,
    "curve": {"reference": REFERENCE} | CURVE,
    "range": {"reference": REFERENCE} | RANGE,
    "mask": {"reference": REFERENCE} | MASK,
    "regions": {"1": REFERENCE, "2": SECOND, "3": THIRD}
    | {name.replace(" references", "").replace(", ", ",\n"): short(order) for name, order in REGIONS.items()},
    "combine": {"1": REFERENCE, "2": SECOND} | COMBINE,
    "negative": {"reference": REFERENCE, "negative": OPPOSITE} | NEGATIVE,
    "embeds_scaling": {"reference": REFERENCE} | SCALING,
    "rescale": {"reference": REFERENCE} | RESCALE,
    "frames": {"reference": REFERENCE} | OVER_FRAMES,
}
