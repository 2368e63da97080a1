"""Claim 3: text and picture together. The text names another shape, the picture gives the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from ..scenes import ATTRIBUTES, BACKGROUND, COLOUR, PATTERN, SHAPE
from .chart import save_chart
from .claim import Bench, Claim
from .figures import Findings, mean, shares
from .orders import FINE, GLOBAL, MOST, OUTER, WEIGHT, Order
from .sheet import Row, save_sheet
from .studio import HasWorlds, Made

CURVE, WEIGHTS = 128, (0.0, 0.25, WEIGHT, 0.7, 0.85, 1.0, 1.25, 1.5)
SHOWN, IN_SHEET = 12, (0.0, 0.25, WEIGHT, 1.0, 1.5)
ADAPTERS = (GLOBAL, FINE)
NAMES = ("named shape", *tuple(ATTRIBUTES)[1:])
WITHOUT_MIDDLE = f"{FINE}, 0.55, middle off"
BARS = {SHAPE: 0.95, COLOUR: 0.95, BACKGROUND: 0.95, PATTERN: 0.90}


def curve_name(adapter: str, weight: float) -> str:
    return f"{adapter}, {weight:g}"


ORDERS = {
    curve_name(adapter, weight): Order(
        MOST if weight == WEIGHT or (adapter, weight) == (GLOBAL, 1.0) else CURVE,
        adapter,
        weight=weight,
        names_shape=True,
    )
    for adapter in ADAPTERS
    for weight in WEIGHTS
} | {WITHOUT_MIDDLE: Order(MOST, FINE, weight=0.55, names_shape=True, groups=OUTER)}
BARRED = (*(curve_name(adapter, WEIGHT) for adapter in ADAPTERS), WITHOUT_MIDDLE)


def obeyed(studio: HasWorlds, made: Made) -> Tensor:
    """Where the shape is the text's and the rest the picture's, [N, 5]."""
    named = studio.world(made.order.world).named[: len(made.scenes)]
    return torch.cat([(made.verdict.attributes[:, SHAPE] == named)[:, None], made.right[:, 1:]], 1)


def measure(bench: Bench, found: Findings) -> None:
    found.say(
        f'The text names another shape ("a star") and nothing else; the picture gives colour, background, pattern and '
        f"size. {CURVE} references at each weight; at the documented weight of {WEIGHT:g}, the dashed line, "
        f'{len(bench.made[curve_name(GLOBAL, WEIGHT)].scenes)}. "shape" counts the shape that the text names. "middle '
        'off": all layers but the middle one get the picture, since that one carries mostly its shape (claim 7).'
    )
    for adapter in ADAPTERS:
        figures = [
            shares(obeyed(bench.studio, bench.made[curve_name(adapter, weight)].first(CURVE))) for weight in WEIGHTS
        ]
        curves = {name: [of_weight[place] for of_weight in figures] for place, name in enumerate(NAMES)}
        file = f"text_and_picture_{adapter}.svg"
        save_chart(
            bench.sheets / file, f"{adapter}: text and picture", "weight of the picture", WEIGHTS, curves, WEIGHT
        )
        found.picture(file, f"{adapter}: shares of obeyed attributes over the weight")
    rows = {name: obeyed(bench.studio, bench.made[name]) for name in ORDERS}
    found.agreements("adapter, weight", rows)
    sheet(bench)
    found.picture("text_and_picture.png", "References, the text's shapes, and pictures over the weight")
    found.say("A red line: the judge misses the named shape, or the reference's colour, background or pattern.")
    for name in BARRED:
        for attribute, wanted in BARS.items():
            found.at_least(f"text and {name}, {NAMES[attribute]}", mean(rows[name][:, attribute]), wanted)


def sheet(bench: Bench) -> None:
    studio, world = bench.studio, bench.made[curve_name(GLOBAL, WEIGHT)].order.world
    count = min(SHOWN, *(len(bench.made[name].scenes) for name in ORDERS))
    heads = [studio.world(world).text(number) for number in range(count)]
    rows = [Row("reference", studio.references(world, count))]
    for adapter in ADAPTERS:
        for weight in IN_SHEET:
            made = bench.made[curve_name(adapter, weight)].first(count)
            right = obeyed(studio, made)[:, list(BARS)].all(1)
            rows.append(Row(f"{adapter},\nweight {weight:g}", made.pictures, right))
    save_sheet(bench.sheets / "text_and_picture.png", rows, heads)


CLAIM = Claim("text_and_picture", "3. Text and picture together", ORDERS, measure)
