"""Claim 2: what the fine-grained adapter carries more than the global one, and what it costs in variety."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from ..world.scenes import ATTRIBUTES
from .alone import against_wrong, similarity, wrong_of
from .claim import Bench, Claim
from .figures import Figure, Findings, mean
from .orders import FINE, GLOBAL, MOST, Order
from .sheet import Row, save_sheet
from .studio import Made

VARIED, SEEDS, APART = 32, 4, 10_000  # references, noises of each, from one seed to the next
SHOWN = 10
ADAPTERS = (GLOBAL, FINE)


def seed_name(adapter: str, number: int) -> str:
    return f"{adapter}, noise {number}"


ORDERS = {
    "no adapter": Order(MOST),
    **{adapter: Order(MOST, adapter) for adapter in ADAPTERS},
    **{
        seed_name(adapter, number): Order(VARIED, adapter, seed=number * APART)
        for adapter in ADAPTERS
        for number in range(1, SEEDS)
    },
}


def off_by(made: Made, positions: Tensor) -> Tensor:
    """Pixels between where the judge sees the shape and where it should be, [N]."""
    return (made.verdict.position - positions).norm(dim=1)


def difference(pictures: Tensor, others: Tensor) -> Tensor:
    """The root of the mean squared difference of each two pictures, of 255, [N]."""
    return 255 * (pictures - others).square().mean((1, 2, 3)).sqrt()


def measure(bench: Bench, found: Findings) -> None:
    studio, world = bench.studio, bench.made[GLOBAL].order.world
    given = studio.world(world).references.given
    count = len(bench.made[GLOBAL].scenes)
    references, positions = studio.references(world, count), given.shift[:count]
    rows, pixels = {name: bench.made[name].right for name in ("no adapter", *ADAPTERS)}, {}
    off = {name: off_by(bench.made[name], positions) for name in rows}
    rows[f"{FINE}, against the wrong reference"] = against_wrong(bench.made[FINE])
    off[f"{FINE}, against the wrong reference"] = off_by(bench.made[FINE], wrong_of(positions))
    pixels = [_short(difference(bench.made[name].pictures, references)) for name in ("no adapter", *ADAPTERS)]
    pixels.append(_short(difference(bench.made[FINE].pictures, wrong_of(references))))
    found.say(
        "*Position off by*: pixels between the shape's place in the reference and where the judge sees it. *Pixels*: "
        "the root mean squared difference from the reference, of 255; it takes in texture, tint, turn and outline."
    )
    found.agreements("pictures", rows, {"position off by": [_short(one) for one in off.values()], "pixels": pixels})
    variety(bench, found)
    bars(bench, found, off)
    sheet(bench, references)
    found.picture("fine_grained.png", "References, and two pictures of each adapter from different noise")


def variety(bench: Bench, found: Findings) -> None:
    lines = []
    for adapter in ADAPTERS:
        sets = [bench.made[adapter].first(VARIED), *(bench.made[seed_name(adapter, n)] for n in range(1, SEEDS))]
        sets = [made.first(VARIED) for made in sets]
        pairs = list(combinations(sets, 2))
        apart = torch.stack([difference(one.pictures, other.pictures) for one, other in pairs]).mean(0)
        moved = torch.stack([(a.verdict.position - b.verdict.position).norm(dim=1) for a, b in pairs]).mean(0)
        alike = [similarity(bench.studio, one.pictures, other.pictures).value for one, other in pairs]
        lines.append([adapter, str(len(apart)), _short(apart), _short(moved), f"{sum(alike) / len(alike):.3f}"])
        found.figures[f"variety: {adapter}"] = {"pixels": mean(apart).value, "position": mean(moved).value}
    found.say(f"Variety: {SEEDS} pictures of one reference from different noise, compared in pairs.")
    found.table(["adapter", "references", "pixels apart", "shape moved by (px)", "CLIP-I of the pair"], lines)


def bars(bench: Bench, found: Findings, off: dict[str, Tensor]) -> None:
    """Paired: the same references and noise for both adapters."""
    gains = bench.made[FINE].right.float() - bench.made[GLOBAL].right.float()
    for name, gain in zip(ATTRIBUTES, gains.unbind(1), strict=True):
        figure = mean(gain)
        found.holds(
            f"fine-grained, {name}, against the global one",
            "not below (interval reaches 0)",
            f"{_points(figure)} points",
            figure.high >= 0,
        )
    whole = mean(bench.made[FINE].right.all(1).float() - bench.made[GLOBAL].right.all(1).float())
    found.holds("fine-grained, all five at once", "better", f"{_points(whole)} points", whole.low > 0)
    nearer = mean(off[GLOBAL] - off[FINE])
    found.holds("fine-grained, position", "better", f"nearer by {nearer.value:.2f} px", nearer.low > 0)


def sheet(bench: Bench, references: Tensor) -> None:
    rows = [Row("reference", references[:SHOWN])]
    for adapter in ADAPTERS:
        for number, made in enumerate((bench.made[adapter], *(bench.made[seed_name(adapter, n)] for n in range(1, 3)))):
            made = made.first(SHOWN)
            rows.append(Row(f"{adapter},\nnoise {number}", made.pictures, made.right.all(1)))
    save_sheet(bench.sheets / "fine_grained.png", rows)


def _short(values: Tensor) -> str:
    figure = mean(values)
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def _points(figure: Figure) -> str:
    return f"{100 * figure.value:+.1f} ({100 * figure.low:+.1f} to {100 * figure.high:+.1f})"


CLAIM = Claim("fine_grained", "2. Fine-grained against global", ORDERS, measure)
