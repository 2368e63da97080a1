"""Claim 6: few parameters, and what decoupled attention is worth against the same adapter with appended tokens."""

from __future__ import annotations

from torch import nn

from trainer.settings.load import load_config
from trainer.step.adapter import is_appended

from ..training.adapters import SIMPLE, preset
from ..world.settings import TEXT_WEIGHT
from .alone import similarity
from .claim import Bench, Claim
from .figures import Findings, mean
from .orders import FINE, GLOBAL, MOST, Order
from .sheet import Row, save_sheet
from .together import obeyed

COUNT, SHOWN = 256, 12
KINDS = {GLOBAL: "decoupled", SIMPLE: "appended"}
COUNTS = {GLOBAL: MOST, SIMPLE: COUNT}
ALONE = {f"{kind}, image alone": Order(COUNTS[adapter], adapter) for adapter, kind in KINDS.items()}
MIXED = {
    f"{kind}, text and picture, weight {weight:g}": Order(COUNTS[adapter], adapter, weight=weight, names_shape=True)
    for weight in (TEXT_WEIGHT, 1.0)
    for adapter, kind in KINDS.items()
}


def measure(bench: Bench, found: Findings) -> None:
    studio = bench.studio
    parts = {
        "UNet": studio.frozen.base.unet,
        "text encoder": studio.frozen.base.text_encoders[0],
        "autoencoder": studio.frozen.base.vae,
    }
    base = {name: count(part) for name, part in parts.items()}
    found.say("Parameters of the base: " + ", ".join(f"{name} {number:,}" for name, number in base.items()) + ".")
    lines = []
    for name in (GLOBAL, FINE, SIMPLE):
        file = studio.file(name)
        tensors, steps = file.tensors, load_config(preset(name)).run.steps
        last, samples = (file.metadata.get(key, "?") for key in ("step", "samples_per_step"))
        projection = sum(value.numel() for key, value in tensors.items() if key.startswith("image_proj."))
        trained = sum(value.numel() for value in tensors.values())
        share = trained / base["UNet"]
        found.figures[name] = {"trained": trained, "projection": projection, "of the UNet": share}
        lines.append(
            [
                name,
                "appended" if is_appended(tensors) else "decoupled",
                f"{projection:,}",
                f"{trained - projection:,}",
                f"{100 * share:.2f} %",
                f"({steps} + {last}) x {samples}",
            ]
        )
    found.table(
        ["adapter", "attention", "projection", "K' and V'", "trained, of the UNet's", "(steps of both runs) x samples"],
        lines,
    )
    found.say(
        "*Simple adapter* (section 4.4.2 of the paper): the same projection, its tokens appended to the text's, "
        "through the base's own frozen K and V; only the projection is trained, for as many steps, by "
        '`adapter.attention = "appended"`. '
        "K' and V' of the decoupled one start at the same K and V. For text and picture the shape is the text's."
    )
    first = bench.made[next(iter(ALONE))]
    references = studio.references(first.order.world, len(first.scenes))
    rows = {name: bench.made[name].right for name in ALONE} | {name: obeyed(studio, bench.made[name]) for name in MIXED}
    clips = [str(similarity(studio, bench.made[name].pictures, references)) for name in rows]
    found.agreements("attention", rows, {"CLIP-I": clips})
    decoupled, appended = (bench.made[name].right for name in ALONE)
    gain = mean(decoupled.all(1).float() - appended.all(1).float())
    found.say(
        f"Image alone, all five at once, decoupled against appended: {100 * gain.value:+.1f} points "
        f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f})."
    )
    sheet_rows = [Row("reference", references[:SHOWN])]
    sheet_rows += [
        Row(name.replace(", ", ",\n", 1), bench.made[name].first(SHOWN).pictures, right[:SHOWN].all(1))
        for name, right in rows.items()
    ]
    save_sheet(bench.sheets / "decoupled_or_appended.png", sheet_rows)
    found.picture("decoupled_or_appended.png", "References, decoupled and appended attention")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


CLAIM = Claim("few_parameters", "6. Few parameters, and decoupled attention", ALONE | MIXED, measure, COUNT)
