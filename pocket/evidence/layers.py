"""Claim 7: what each group of layers carries when it alone gets the picture."""

from __future__ import annotations

from .alone import similarity
from .claim import Bench, Claim
from .figures import Findings
from .orders import GLOBAL, GROUPS, MOST, OUTER, Order
from .sheet import Row, save_sheet
from .studio import layers_of

COUNT, SHOWN = 128, 12
WITHOUT = "all but the middle"
ORDERS = {
    "no layer": Order(MOST),
    **{group: Order(COUNT, GLOBAL, groups=(group,)) for group in GROUPS},
    WITHOUT: Order(COUNT, GLOBAL, groups=OUTER),
    "all layers": Order(MOST, GLOBAL),
}


def measure(bench: Bench, found: Findings) -> None:
    unet = bench.studio.frozen.base.unet
    groups = [f"{group} ({len(layers_of(unet, [group]))})" for group in GROUPS]
    found.say(
        f"Image alone with `{GLOBAL}`, trained in all layers; only these cross-attention layers get it. Groups, "
        f'with their number of layers: {"; ".join(groups)}. "{WITHOUT}" is what older packs do.'
    )
    references = bench.studio.references(bench.made["no layer"].order.world, len(bench.made["no layer"].scenes))
    clips = [str(similarity(bench.studio, bench.made[name].pictures, references)) for name in ORDERS]
    found.agreements("layers", {name: bench.made[name].right for name in ORDERS}, {"CLIP-I": clips})
    some = {name: bench.made[name].first(SHOWN) for name in ORDERS}
    save_sheet(
        bench.sheets / "layers.png",
        [Row("reference", references[:SHOWN])]
        + [Row(name, made.pictures, None if name == "no layer" else made.right.all(1)) for name, made in some.items()],
    )
    found.picture("layers.png", "References, and pictures where only some layers get them")


CLAIM = Claim("layers", "7. Layers", ORDERS, measure, COUNT)
