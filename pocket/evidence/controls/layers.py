"""Controls, layers: what each preset and each attention module carries of the picture, and what it leaves the text."""

from __future__ import annotations

from ipadapter_core import Layers, layer_weights
from ipadapter_core.facts.presets import CONTENT, SHAPES
from trainer.base.sites import unet_layers

from ...world.scenes import ATTRIBUTES, SHAPE
from ..claim import Bench, Claim
from ..figures import Findings, mean
from ..orders import GLOBAL, Order
from ..prompt import Prompt
from ..studio import Studio
from .tables import COUNT, add_table

WHERE = ("down, 8 x 8", "down, 4 x 4", "middle, 4 x 4", *["up, 4 x 4"] * 2, *["up, 8 x 8"] * 2)  # of each module
MODULES = {f"module {t} alone ({where})": Layers(text=f"{t}: 1") for t, where in enumerate(WHERE)}
PRESETS = {name: Layers(name) for name in SHAPES}


def order(layers: Layers) -> Order:
    return Order(COUNT, GLOBAL, names_shape=True, prompts=(Prompt(layers=layers),))


ORDERS = {f"layers: {name}": order(layers) for name, layers in (PRESETS | MODULES).items()}
HEAD = ("text's shape", "picture's shape", *tuple(ATTRIBUTES)[1:])


def measure(bench: Bench, found: Findings) -> None:
    found.say(
        f'The text names another shape ("a star"), the picture is applied by `{GLOBAL}` at weight 1 in some of the '
        f"layers; {len(next(iter(bench.made.values())).scenes)} references each. *Mean share*: of the weight, over the "
        f"seven attention modules of pocket. The presets {', '.join(CONTENT)} name modules of SD1.5 and SDXL and are "
        "refused on a model of another shape, so those ten are here that are rules for any; the modules one by one "
        "(texts of *by_layer*) show what a text like these presets would be on pocket."
    )
    named = bench.studio.world(next(iter(bench.made.values())).order.world).named
    rows = {}
    for name in PRESETS | MODULES:
        made = bench.made[f"layers: {name}"]
        shape = made.verdict.attributes[:, SHAPE]
        right = [shape == named[: len(shape)], *made.right.unbind(1)]
        rows[name] = [mean(one) for one in right]
    shares = [f"{share(bench.studio, layers):.2f}" for layers in (PRESETS | MODULES).values()]
    add_table(found, "layers", HEAD, rows, ("mean share", shares))


def share(studio: Studio, layers: Layers) -> float:
    """The mean over the model's attention modules."""
    sites = unet_layers(studio.frozen.base.unet)
    return sum(layer_weights(layers, sites).values()) / len(sites)


CLAIM = Claim("controls_layers", "Layers", ORDERS, measure, COUNT)
