"""Controls, negative pictures: how often an attribute of the negative picture appears, with it and without."""

from __future__ import annotations

from ...world.scenes import ATTRIBUTES
from ..claim import Bench, Claim
from ..figures import Figure, Findings, mean
from ..orders import GLOBAL, Order
from ..prompt import OPPOSITE, REFERENCE, Prompt
from .tables import COUNT, add_table

WEAK = 0.25
KINDS = {
    "one picture": (False, Prompt()),
    f"text and picture at {WEAK:g}": (True, Prompt(weight=WEAK)),
    "two pictures, both the prompt": (False, Prompt((REFERENCE, OPPOSITE))),
}
ORDERS = {
    f"negative, {name}: {'with' if negative else 'without'}": Order(
        COUNT, GLOBAL, names_shape=names, prompts=(Prompt(prompt.sources, prompt.weight, negative=negative),)
    )
    for name, (names, prompt) in KINDS.items()
    for negative in ("", OPPOSITE)
}


def measure(bench: Bench, found: Findings) -> None:
    first = next(iter(bench.made.values()))
    found.say(
        f"With `{GLOBAL}`, {len(first.scenes)} references. The negative picture is one that differs from the reference "
        "in all five attributes. *One picture*: the reference alone, at weight 1 with an empty text. *Text and "
        f"picture*: the text names a shape, the picture counts {WEAK:g}. *Two "
        "pictures*: reference and the negative picture are both the prompt, concatenated, at weight 1 with an empty "
        "text. Shares of pictures that have the attribute of the negative picture, then of the reference."
    )
    world = bench.studio.world(first.order.world)
    for whose, head in ((OPPOSITE, "the negative picture's"), (REFERENCE, "the reference's")):
        rows: dict[str, list[Figure | None]] = {}
        for name in ORDERS:
            seen = bench.made[name].verdict.attributes
            scenes = world.references.scenes
            scenes = (scenes[world.others[OPPOSITE]] if whose == OPPOSITE else scenes)[: len(seen)]
            rows[name.removeprefix("negative, ")] = [mean(one) for one in (seen == scenes).unbind(1)]
        add_table(found, head, tuple(ATTRIBUTES), rows)


CLAIM = Claim("controls_negatives", "Negative pictures", ORDERS, measure, COUNT)
