"""Claim 3: text and picture together. The text names another shape, the picture gives the rest."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..world.scenes import ATTRIBUTES, BACKGROUND, COLOUR, PATTERN, SHAPE
from ..world.settings import TEXT_WEIGHT
from .chart import save_chart
from .claim import Bench, Claim
from .figures import Findings, mean, shares
from .orders import BESIDE, BESIDE_NAME, FINE, GLOBAL, MOST, Order
from .sheet import Row, save_sheet
from .studio import HasWorlds, Made

CURVE, WEIGHTS = 128, (0.0, 0.25, 0.4, TEXT_WEIGHT, 0.7, 0.85, 1.0, 1.25, 1.5)
SHOWN, IN_SHEET = 12, (0.0, 0.25, TEXT_WEIGHT, 1.0, 1.5)
KINDS = {GLOBAL: Order(CURVE, GLOBAL), FINE: Order(CURVE, FINE), BESIDE_NAME: BESIDE}
NAMES = ("named shape", *tuple(ATTRIBUTES)[1:])
BARS = {SHAPE: 0.95, COLOUR: 0.95, BACKGROUND: 0.95, PATTERN: 0.90}


def at(kind: str, weight: float) -> str:
    return f"{kind}, {weight:g}"


ORDERS = {
    at(kind, weight): dataclasses.replace(
        order,
        count=MOST if weight == TEXT_WEIGHT or (kind, weight) == (GLOBAL, 1.0) else CURVE,
        weight=weight,
        names_shape=True,
    )
    for kind, order in KINDS.items()
    for weight in WEIGHTS
}
DOCUMENTED = at(BESIDE_NAME, TEXT_WEIGHT)


def obeyed(studio: HasWorlds, made: Made) -> Tensor:
    """Where the shape is the text's and the rest the picture's, [N, 5]."""
    named = studio.world(made.order.world).named[: len(made.scenes)]
    return torch.cat([(made.verdict.attributes[:, SHAPE] == named)[:, None], made.right[:, 1:]], 1)


def measure(bench: Bench, found: Findings) -> None:
    found.say(
        'The text names another shape ("a star") and nothing else; the picture gives colour, background, pattern and '
        f"size. {CURVE} references at each weight, {len(bench.made[DOCUMENTED].scenes)} at {TEXT_WEIGHT:g}, the dashed "
        'line. "shape" counts the shape that the text names. "middle off": all layers but the middle one get the '
        f"picture, since that one carries mostly its shape (claim 7). The documented setting is {DOCUMENTED}."
    )
    for kind in KINDS:
        figures = [shares(obeyed(bench.studio, bench.made[at(kind, weight)].first(CURVE))) for weight in WEIGHTS]
        curves = {name: [of_weight[place] for of_weight in figures] for place, name in enumerate(NAMES)}
        file = f"text_and_picture_{kind.replace(', ', '_').replace(' ', '_')}.svg"
        save_chart(
            bench.sheets / file, f"{kind}: text and picture", "weight of the picture", WEIGHTS, curves, TEXT_WEIGHT
        )
        found.picture(file, f"{kind}: shares of obeyed attributes over the weight")
    rows = {name: obeyed(bench.studio, bench.made[name]) for name in ORDERS}
    found.agreements("adapter, weight", rows)
    sheet(bench)
    found.picture("text_and_picture.png", "References, the text's shapes, and pictures over the weight")
    found.say("A red line: the judge misses the named shape, or the reference's colour, background or pattern.")
    for attribute, wanted in BARS.items():
        found.at_least(f"text and {DOCUMENTED}, {NAMES[attribute]}", mean(rows[DOCUMENTED][:, attribute]), wanted)


def sheet(bench: Bench) -> None:
    studio, world = bench.studio, bench.made[DOCUMENTED].order.world
    count = min(SHOWN, *(len(bench.made[name].scenes) for name in ORDERS))
    heads = [studio.world(world).text(number) for number in range(count)]
    rows = [Row("reference", studio.references(world, count))]
    for kind in (GLOBAL, BESIDE_NAME):
        for weight in IN_SHEET:
            made = bench.made[at(kind, weight)].first(count)
            right = obeyed(studio, made)[:, list(BARS)].all(1)
            rows.append(Row(f"{kind},\nweight {weight:g}".replace(", ", ",\n"), made.pictures, right))
    save_sheet(bench.sheets / "text_and_picture.png", rows, heads)


CLAIM = Claim("text_and_picture", "3. Text and picture together", ORDERS, measure)
