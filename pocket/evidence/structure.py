"""Claim 5: structure from elsewhere. A ControlNet gives the shape; two references, each in its own half."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..world.drawing import SIDE
from ..world.scenes import BACKGROUND, COLOUR, SHAPE
from ..world.settings import HALF_WEIGHT, SILHOUETTE_WEIGHT
from . import regions
from .claim import Bench, Claim
from .figures import Findings, mean
from .orders import ANY_SHAPE, BESIDE, BESIDE_NAME, FINE, GLOBAL, ONE_SHAPE, Order
from .sheet import Row, save_sheet
from .studio import HasWorlds, Made

COUNT, SHOWN = 256, 12
HALVES = {"upper": slice(0, SIDE // 2), "lower": slice(SIDE // 2, SIDE)}
DOCUMENTED = f"silhouette and {BESIDE_NAME}"
CONTROLLED = {
    "silhouette alone": Order(COUNT, has_silhouette=True),
    f"silhouette and {GLOBAL}": Order(COUNT, GLOBAL, weight=SILHOUETTE_WEIGHT, has_silhouette=True),
    f"silhouette and {FINE}": Order(COUNT, FINE, weight=SILHOUETTE_WEIGHT, has_silhouette=True),
    DOCUMENTED: dataclasses.replace(BESIDE, count=COUNT, weight=SILHOUETTE_WEIGHT, has_silhouette=True),
}
HALVED = {
    f"{GLOBAL} twice": Order(COUNT, GLOBAL, weight=HALF_WEIGHT, halves=ONE_SHAPE),
    f"{FINE} twice": Order(COUNT, FINE, weight=HALF_WEIGHT, halves=ONE_SHAPE),
    f"{FINE} twice, any shapes": Order(COUNT, FINE, weight=HALF_WEIGHT, halves=ANY_SHAPE),
}
SHAPE_BAR, REST_BAR, HALF_BAR = 0.97, 0.95, 0.90


def obeyed(studio: HasWorlds, made: Made) -> Tensor:
    """Where shape and size are the silhouette's and the rest the picture's, [N, 5]."""
    wanted = studio.world(made.order.world).outlines[: len(made.scenes)]
    return made.verdict.attributes == wanted  # their other attributes are the references'


def own(studio: HasWorlds, made: Made) -> dict[str, Tensor]:
    """For each half where colour, background and pattern are its own reference's, [N, 3]."""
    partner = studio.world(made.order.world).partners[made.order.halves][: len(made.scenes)]
    scenes = studio.world(made.order.world).references.scenes
    wanted = {"upper": made.scenes, "lower": scenes[partner]}
    return {half: regions.told(made.pictures, rows) == regions.wanted(wanted[half]) for half, rows in HALVES.items()}


def measure(bench: Bench, found: Findings) -> None:
    controlled(bench, found)
    halved(bench, found)


def controlled(bench: Bench, found: Findings) -> None:
    studio = bench.studio
    found.say(
        "*A ControlNet* for silhouettes gives another shape, of any size, at any place; the text is empty, the picture "
        "gives colour, background and pattern. The ControlNet acts on the positive alone, so that guidance strengthens "
        f"the silhouette as it does the picture. The picture's weight is {SILHOUETTE_WEIGHT:g}. Shape and size are "
        f"counted against the silhouette, the rest against the reference. The documented setting is {BESIDE_NAME}."
    )
    rows = {name: obeyed(studio, bench.made[name]) for name in CONTROLLED}
    found.agreements("pictures", rows)
    some = {name: bench.made[name].first(SHOWN) for name in CONTROLLED}
    world, count = some["silhouette alone"].order.world, len(some["silhouette alone"].scenes)
    save_sheet(
        bench.sheets / "silhouettes.png",
        [
            Row("silhouette", studio.world(world).silhouettes(torch.arange(count))),
            Row("reference", studio.references(world, count)),
        ]
        + [
            Row(
                name.replace(" and ", " and\n").replace(", ", ",\n"),
                made.pictures,
                None if name == "silhouette alone" else rows[name][:count, [SHAPE, COLOUR, BACKGROUND]].all(1),
            )
            for name, made in some.items()
        ],
    )
    found.picture("silhouettes.png", "Silhouettes, references, and pictures of both")
    found.say("A red line: the judge misses the silhouette's shape, or the reference's colour or background.")
    for attribute, word, wanted in (
        (SHAPE, "shape of the silhouette", SHAPE_BAR),
        (COLOUR, "colour of the picture", REST_BAR),
        (BACKGROUND, "background of the picture", REST_BAR),
    ):
        found.at_least(f"ControlNet and {BESIDE_NAME}, {word}", mean(rows[DOCUMENTED][:, attribute]), wanted)


def halved(bench: Bench, found: Findings) -> None:
    studio, first = bench.studio, bench.made[f"{GLOBAL} twice"]
    world, count = studio.world(first.order.world), len(first.scenes)
    found.say(
        f"*Two references*, each masked to one half of the picture, at a weight of {HALF_WEIGHT:g}; they differ in "
        'colour and pattern, and are of one shape and size ("any shapes": of any, so that the halves contend for the '
        "outline). Upper and lower half, since the right half of a moon has hardly any fill. A half is read by the "
        "drawing that explains it best, since the judge knows whole pictures only. The first rows are this ruler on "
        f"the references' own halves. The documented setting is {FINE}."
    )
    drawn = Made(first.order, studio.references(first.order.world, count), first.verdict, first.scenes)
    ruler = {half: regions.told(drawn.pictures, rows) == regions.wanted(drawn.scenes) for half, rows in HALVES.items()}
    found_of = {"the references themselves": ruler} | {name: own(studio, bench.made[name]) for name in HALVED}
    lines = []
    for name, halves in found_of.items():
        for half, right in halves.items():
            figures = [mean(one) for one in (*right.unbind(1), right[:, [0, 2]].all(1))]
            found.figures[f"halves: {name}, {half}"] = [figure.value for figure in figures]
            lines.append([f"{name}, {half}", str(len(right)), *(figure.percent for figure in figures)])
    found.table(["half", "n", "fill", "background", "pattern", "fill and pattern"], lines)
    shown = min(SHOWN, count)
    rows = [Row("upper reference", studio.references(first.order.world, shown))]
    for kind, names in {ONE_SHAPE: list(HALVED)[:2], ANY_SHAPE: list(HALVED)[2:]}.items():
        rows.append(Row(f"lower reference,\n{kind}", world.references.of(world.partners[kind][:shown])))
        for name in names:
            right = torch.stack([one[:shown][:, [0, 2]].all(1) for one in found_of[name].values()]).all(0)
            rows.append(Row(name.replace(", ", ",\n"), bench.made[name].first(shown).pictures, right))
    save_sheet(bench.sheets / "two_references.png", rows)
    found.picture("two_references.png", "Two references, each in its own half")
    found.say("A red line: a half has another fill or pattern than its reference.")
    for half, right in found_of[f"{FINE} twice"].items():
        for place, word in ((0, "fill"), (2, "pattern")):
            found.at_least(f"{FINE} twice, {half} half, {word}", mean(right[:, place]), HALF_BAR)


CLAIM = Claim("structure", "5. Structure: a ControlNet, and two references by masks", CONTROLLED | HALVED, measure)
