"""Controls, regions: two and three references, each in its own part of the picture, the last one in what is left."""

from __future__ import annotations

import torch
from torch import Tensor

from ...world.drawing import SIDE
from ...world.settings import HALF_WEIGHT
from ..claim import Bench, Claim
from ..figures import Figure, Findings, mean
from ..orders import FINE, Order
from ..prompt import BACKGROUND_PART, LOWER, LOWER_LEFT, LOWER_RIGHT, REFERENCE, SECOND, THIRD, UPPER, Prompt, slices
from ..regions import told, wanted
from ..sheet import Row, save_sheet
from ..studio import Made, Studio
from .tables import COUNT, add_table

SHOWN = 12
# Where each source is; the last one has no mask of its own.
TWO = {REFERENCE: UPPER, SECOND: LOWER}
THREE = {REFERENCE: UPPER, SECOND: LOWER_LEFT, THIRD: LOWER_RIGHT}
LAYOUTS = {"two": TWO, "three": THREE}
HEAD = ("own fill", "own background", "own pattern", "another's fill", "another's background", "another's pattern")


def order(layout: dict[str, str], is_masked: bool) -> Order:
    *masked, last = layout
    parts = {source: layout[source] for source in masked} | {last: BACKGROUND_PART}
    prompts = [
        Prompt((source,), HALF_WEIGHT if is_masked else 1 / len(layout), part=parts[source] if is_masked else "")
        for source in layout
    ]
    return Order(COUNT, FINE, prompts=tuple(prompts))


ORDERS = {
    f"{name} references{'' if is_masked else ', no masks'}": order(layout, is_masked)
    for name, layout in LAYOUTS.items()
    for is_masked in (True, False)
}


def told_of(studio: Studio, made: Made, layout: dict[str, str]) -> dict[str, tuple[Tensor, Tensor]]:
    """By part: where fill, background and pattern are its own reference's, and where another's, [N, 3]."""
    world = studio.world(made.order.world)
    rows = torch.arange(len(made.scenes))
    scenes = {source: wanted(world.references.scenes[world.rows_of(source, rows)]) for source in layout}
    found = {}
    for source, part in layout.items():
        seen = told(made.pictures, *slices(part, SIDE))
        others = [seen == scene for other, scene in scenes.items() if other != source]
        found[part] = (seen == scenes[source], torch.stack(others).any(0))
    return found


def drawn(studio: Studio, made: Made, layout: dict[str, str]) -> Made:
    """In place of pictures: the references' own parts, for the ruler."""
    world, rows = studio.world(made.order.world), torch.arange(len(made.scenes))
    pictures = torch.zeros_like(made.pictures)
    for source, part in layout.items():
        across = (..., *slices(part, SIDE))
        pictures[across] = world.references.of(world.rows_of(source, rows))[across]
    return Made(made.order, pictures, made.verdict, made.scenes)


def measure(bench: Bench, found: Findings) -> None:
    first = next(iter(bench.made.values()))
    found.say(
        f"Image alone with `{FINE}`, {len(first.scenes)} sets of references of one size that differ in colour, "
        "background and pattern; shapes are any. *Two*: upper half, and the background, which is all that no mask "
        f"covers. *Three*: upper half, lower left, and the background. The weight is {HALF_WEIGHT:g}; without masks it "
        "is shared out, and shows what a part has by chance of a mixture. A part is read by the drawing that explains "
        "it best; the first rows of each are this ruler on the references' own parts. *Another's*: of any of the "
        "other references."
    )
    rows: dict[str, list[Figure | None]] = {}
    for name, layout in LAYOUTS.items():
        made = bench.made[f"{name} references"]
        sets = {f"{name}, drawn": drawn(bench.studio, made, layout), f"{name}": made}
        sets[f"{name}, no masks"] = bench.made[f"{name} references, no masks"]
        for word, one in sets.items():
            for part, (own, others) in told_of(bench.studio, one, layout).items():
                rows[f"{word}: {part}"] = [mean(right) for right in (*own.unbind(1), *others.unbind(1))]
    add_table(found, "references: part", HEAD, rows)
    sheet(bench)
    found.picture("controls_regions.png", "Two and three references, each in its own part")
    found.say("A red line: a part has another fill or background than its reference.")


def sheet(bench: Bench) -> None:
    studio, first = bench.studio, bench.made["three references"].first(SHOWN)
    world, rows = studio.world(first.order.world), torch.arange(len(first.scenes))
    lines = [Row(f"{source}", world.references.of(world.rows_of(source, rows))) for source in THREE]
    for name, layout in LAYOUTS.items():
        for word in (f"{name} references", f"{name} references, no masks"):
            made = bench.made[word].first(SHOWN)
            parts = [own[:, :2].all(1) for own, _ in told_of(studio, made, layout).values()]
            lines.append(Row(word.replace(", ", ",\n"), made.pictures, torch.stack(parts).all(0)))
    save_sheet(bench.sheets / "controls_regions.png", lines)


CLAIM = Claim("controls_regions", "Regions", ORDERS, measure, COUNT)
