"""Claim 4: the same adapter on another look of the base, on which it was never trained."""

from __future__ import annotations

from ..world.scenes import ATTRIBUTES
from .alone import similarity
from .claim import Bench, Claim
from .figures import Findings, mean
from .orders import FINE, GLOBAL, MOST, Order
from .sheet import Row, save_sheet

COUNT, SHOWN = 256, 12
NEAR, LOOK_BAR = 0.05, 0.95

ORDERS = {
    "stickers, no adapter": Order(COUNT, is_sticker=True),
    f"base, {GLOBAL}": Order(MOST, GLOBAL),
    f"stickers, {GLOBAL}": Order(COUNT, GLOBAL, is_sticker=True),
    f"base, {FINE}": Order(MOST, FINE),
    f"stickers, {FINE}": Order(COUNT, FINE, is_sticker=True),
}


def measure(bench: Bench, found: Findings) -> None:
    made = bench.made
    found.say(
        "The base was fine-tuned on stickers (a white rim, a dark line around the shape) and is loaded as a LoRA; the "
        "adapters were trained on the plain base only. Same references, same noise, image alone. *Stickers*: the share "
        "that the judge of the look calls so."
    )
    looks = {name: mean(one.verdict.is_sticker) for name, one in made.items()}
    found.figures["stickers"] = {name: look.value for name, look in looks.items()}
    references = bench.studio.references(made[f"base, {GLOBAL}"].order.world, len(made[f"base, {GLOBAL}"].scenes))
    clips = [f"{similarity(bench.studio, one.pictures, references)}" for one in made.values()]
    found.agreements(
        "base and adapter",
        {name: one.right for name, one in made.items()},
        {"stickers": [look.percent for look in looks.values()], "CLIP-I": clips},
    )
    rows = [Row("reference", references[:SHOWN])]
    for name, one in made.items():
        one = one.first(SHOWN)
        is_right = one.right.all(1) & (one.verdict.is_sticker if name.startswith("stickers") else True)
        rows.append(Row(name.replace(", ", ",\n"), one.pictures, is_right if "pocket" in name else None))
    save_sheet(bench.sheets / "other_look.png", rows)
    found.picture("other_look.png", "References, the base and its other look with the same adapters")
    for adapter in (GLOBAL, FINE):
        plain, sticker = made[f"base, {adapter}"].right, made[f"stickers, {adapter}"].right
        for name, one, other in zip(ATTRIBUTES, plain.unbind(1), sticker.unbind(1), strict=True):
            lost = mean(one.float() - other.float())
            text = f"{100 * lost.value:+.1f} ({100 * lost.low:+.1f} to {100 * lost.high:+.1f})"
            found.holds(
                f"other look, {adapter}, {name} lost",
                f"at most {100 * NEAR:g} points",
                f"{text} points",
                lost.value <= NEAR,
            )
        found.at_least(f"other look, {adapter}, is kept", looks[f"stickers, {adapter}"], LOOK_BAR)


CLAIM = Claim("other_look", "4. Reuse: the same adapter on another look of the base", ORDERS, measure, COUNT)
