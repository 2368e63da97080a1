"""Controls, curves: the same mean weight, early, late or all the time, beside a text that names another shape."""

from __future__ import annotations

from ipadapter_core import Curve

from ...world.scenes import ATTRIBUTES, SHAPE
from ...world.settings import TEXT_WEIGHT
from ..claim import Bench, Claim
from ..figures import Findings, mean
from ..orders import FINE, Order
from ..prompt import Prompt
from .tables import COUNT, add_table

CURVES = {
    "constant, 1": Curve(),
    "falling, 2 to 0": Curve.spread((2, 0)),
    "rising, 0 to 2": Curve.spread((0, 2)),
    "2 in the first half": Curve(((0, 2), (0.5, 2))),
    "2 in the second half": Curve(((0.5, 2), (1, 2))),
}
HEAD = ("text's shape", "picture's shape", *tuple(ATTRIBUTES)[1:])
ORDERS = {
    f"curve: {name}": Order(COUNT, FINE, names_shape=True, prompts=(Prompt(weight=TEXT_WEIGHT, curve=curve),))
    for name, curve in CURVES.items()
}


def measure(bench: Bench, found: Findings) -> None:
    first = next(iter(bench.made.values()))
    found.say(
        f"The text names another shape; the picture is applied by `{FINE}` at weight {TEXT_WEIGHT:g} times a curve "
        f"over the sampling whose mean is 1; {len(first.scenes)} references each."
    )
    named = bench.studio.world(first.order.world).named
    rows = {}
    for name in CURVES:
        made = bench.made[f"curve: {name}"]
        shape = made.verdict.attributes[:, SHAPE]
        rows[name] = [mean(one) for one in (shape == named[: len(shape)], *made.right.unbind(1))]
    add_table(found, "curve", HEAD, rows)


CLAIM = Claim("controls_curves", "Curves", ORDERS, measure, COUNT)
