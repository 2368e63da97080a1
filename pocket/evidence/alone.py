"""Claim 1: the image prompt alone carries what the reference shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..world.scenes import ATTRIBUTES, COUNTS
from ..world.settings import GUIDANCE
from .claim import Bench, Claim
from .figures import Figure, Findings, mean, shares
from .orders import FINE, GLOBAL, MOST, PAPER_GUIDANCE, Order
from .sheet import Row, save_sheet
from .studio import Made, Studio

SWEPT, SWEEP = 128, (2.0, 3.0, GUIDANCE, 5.5, PAPER_GUIDANCE)
WANTED = (0.97, 0.97, 0.97, 0.95, 0.95, 0.82)
SHOWN = 12

ORDERS = {
    "no adapter": Order(MOST),
    GLOBAL: Order(MOST, GLOBAL),
    f"{GLOBAL}, guidance {PAPER_GUIDANCE}": Order(MOST, GLOBAL, PAPER_GUIDANCE),
    FINE: Order(MOST, FINE),
    f"{FINE}, guidance {PAPER_GUIDANCE}": Order(MOST, FINE, PAPER_GUIDANCE),
    **{
        f"sweep {guidance:g}": Order(SWEPT, GLOBAL, guidance)
        for guidance in SWEEP
        if guidance not in (GUIDANCE, PAPER_GUIDANCE)
    },
}


def similarity(studio: Studio, pictures: Tensor, references: Tensor) -> Figure:
    """CLIP-I: the cosine of the embeddings of pictures and references [N, 3, 64, 64], by pocket's image encoder."""
    one, other = (F.normalize(studio.encoded(some), dim=-1) for some in (pictures, references))
    return mean((one * other).sum(-1))


def wrong_of(values: Tensor) -> Tensor:
    """What belongs to the reference before, for each of N: a wrong one. No two are each other's."""
    return values.roll(1, 0)


def against_wrong(made: Made) -> Tensor:
    """Where the attributes are those of a wrong reference, [N, 5]."""
    return made.verdict.attributes == wrong_of(made.scenes)


def base_rates(scenes: Tensor) -> list[float]:
    """How often two of the references share an attribute."""
    rates = []
    for attribute, count in enumerate(COUNTS):
        number = torch.bincount(scenes[:, attribute], minlength=count).double()
        rates.append(float((number * (number - 1)).sum() / (len(scenes) * (len(scenes) - 1))))
    return rates


def measure(bench: Bench, found: Findings) -> None:
    studio, world = bench.studio, bench.made[GLOBAL].order.world
    references = studio.references(world, len(bench.made[GLOBAL].scenes))
    shown = [name for name in ORDERS if not name.startswith("sweep")]
    rows = {f"{name}": bench.made[name].right for name in shown}
    clips = [f"{similarity(studio, bench.made[name].pictures, references)}" for name in shown]
    wrong = against_wrong(bench.made[GLOBAL])
    rows["pocket, against the wrong reference"] = wrong
    clips.append(f"{similarity(studio, bench.made[GLOBAL].pictures, wrong_of(references))}")
    found.say(
        f"Empty text, weight 1, {bench.made[GLOBAL].order.steps} DDIM steps, guidance {GUIDANCE:g} where no other is "
        "named. References show combinations of shape, colour and pattern that no training has seen. Shares of "
        "pictures with the reference's attribute, in percent with the interval of 95 %. *Wrong reference*: the one "
        "before in the set. *CLIP-I* is the cosine of the embeddings of picture and reference by pocket's own encoder."
    )
    found.agreements("pictures", rows, {"CLIP-I": clips})
    rates = base_rates(bench.made[GLOBAL].scenes)
    found.say(
        "Two of these references share an attribute by chance in: "
        + ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in zip(ATTRIBUTES, rates))
        + "."
    )
    sweep(bench, found)
    sheet(bench, references)
    found.picture("image_alone.png", "References, and pictures from them alone")
    found.say(f"The first {SHOWN} references. A red line: the judge misses an attribute of the reference.")
    for adapter in (GLOBAL, FINE):
        for name, figure, wanted in zip(
            (*ATTRIBUTES, "all five"), shares(bench.made[adapter].right), WANTED, strict=True
        ):
            found.at_least(f"{adapter}, image alone, {name}", figure, wanted)
    for name, figure, rate in zip(ATTRIBUTES, (mean(one) for one in wrong.unbind(1)), rates, strict=True):
        found.holds(
            f"wrong reference, {name}",
            f"the base rate {100 * rate:.1f} % inside of the interval",
            f"{figure.percent} %",
            figure.low <= rate <= figure.high,
        )


def sweep(bench: Bench, found: Findings) -> None:
    names = {GUIDANCE: GLOBAL, PAPER_GUIDANCE: f"{GLOBAL}, guidance {PAPER_GUIDANCE}"}
    found.say(f"What guidance suits pocket, on the first {SWEPT} references:")
    found.agreements(
        "guidance",
        {
            f"{guidance:g}": bench.made[names.get(guidance, f"sweep {guidance:g}")].first(SWEPT).right
            for guidance in SWEEP
        },
    )


def sheet(bench: Bench, references: Tensor) -> None:
    some = {name: bench.made[name].first(SHOWN) for name in ORDERS if not name.startswith("sweep")}
    labels = {name: name.replace(", ", ",\n") for name in some}
    save_sheet(
        bench.sheets / "image_alone.png",
        [Row("reference", references[:SHOWN])]
        + [
            Row(labels[name], made.pictures, None if name == "no adapter" else made.right.all(1))
            for name, made in some.items()
        ],
    )


CLAIM = Claim("image_alone", "1. The image prompt alone", ORDERS, measure)
