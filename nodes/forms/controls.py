"""The inputs that say how an image prompt is applied: one table, from which every form that applies one is made.

A new control is a field of `Influence`, a row here, and a line in `controls`. Rows that came later stand in
CONTROL_INPUTS, which forms put last, because saved graphs keep the values of widgets by their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.input import CurveInput
from comfy_api.latest import io

from ...ipadapter_core import (
    BASE_NAMES,
    COMBINE,
    CONCATENATE,
    LAYER_WEIGHTS,
    SCALINGS,
    Curve,
    Influence,
    picture_weights,
)
from ..sockets import LayersType, PromptType

MODEL = f"A UNet model ({BASE_NAMES}) of the adapter's base, or any fine-tune of it."
WEIGHT, LAYERS, START, END = PLACE_AND_TIME = [
    io.Float.Input(
        "weight", default=Influence.weight, min=-1.0, max=3.0, step=0.05,
        tooltip="How strongly the picture counts beside the text: 1 is the training's own, 0 (neutral) does nothing; "
        "0.5 to 0.8 leaves room for the text. A list of numbers, linked, gives each latent (frame) its own.",
    ),
    io.Combo.Input(
        "layers", options=list(LAYER_WEIGHTS), default=Influence.layers,
        tooltip="Which layers follow the picture: 'all' (neutral), those that carry style, composition or both, parts "
        "of the network, or all but the middle block, as older packs did. The node says which these are.",
    ),
    io.Float.Input(
        "start_percent", default=Influence.curve.start, min=0.0, max=1.0, step=0.001, advanced=True,
        tooltip="When in the sampling the picture starts to count, 0 to 1. Neutral: 0.",
    ),
    io.Float.Input(
        "end_percent", default=Influence.curve.end, min=0.0, max=1.0, step=0.001, advanced=True,
        tooltip="When in the sampling the picture stops to count, 0 to 1. Neutral: 1.",
    ),
]  # fmt: skip
COMBINE_INPUT = io.Combo.Input(
    "combine", options=list(COMBINE), default=CONCATENATE, advanced=True,
    tooltip="What a batch of references means: all at once ('concatenate'), one picture made of them ('average' and "
    "those after it), or one for each latent of the batch. For one picture (neutral) all are the same.",
)  # fmt: skip
MASK_INPUT = io.Mask.Input(
    "mask", optional=True,
    tooltip="Where in the result the picture counts, of any size, soft edges too; a batch gives each latent its own. "
    "Neutral: not connected, everywhere.",
)  # fmt: skip
APPLY_INPUTS = [*PLACE_AND_TIME, COMBINE_INPUT, MASK_INPUT]
FACE_INPUTS = [
    io.Float.Input(
        "lora_strength", default=1.0, min=-2.0, max=2.0, step=0.05, optional=True, advanced=True,
        tooltip="Strength of the LoRA that FaceID adapters bring for the base model: 1 (neutral) is the training's "
        "own, 0 leaves it out. It acts in the whole sampling, and is not added where the model has it already.",
    ),
    io.Float.Input(
        "shortcut_scale", default=1.0, min=0.0, max=5.0, step=0.05, optional=True, advanced=True,
        tooltip="FaceID plus v2: how much the face's picture counts beside its identity. Neutral: 1.",
    ),
]  # fmt: skip
CONTROL_INPUTS = [
    LayersType.Input(
        "layer_weights", optional=True,
        tooltip="From Layer Weights; used in place of 'layers'. Neutral: not connected.",
    ),
    io.Custom("CURVE").Input(
        "curve", optional=True, extra_dict={"forceInput": True},
        tooltip="From Curve Editor: a factor of the weight (up) over the sampling (across), on the same scale as "
        "start_percent and end_percent. Neutral: not connected, 1 all the time.",
    ),
    io.Float.Input(
        "curve_values", optional=True, force_input=True,
        tooltip="A list of numbers in place of a curve: factors of the weight, spread evenly from the start of the "
        "sampling to its end. Neutral: not connected.",
    ),
    PromptType.Input(
        "negative", optional=True,
        tooltip="What the result is to move away from: an image prompt in place of 'no picture' on the negative side, "
        "also one of noise. Neutral: not connected.",
    ),
    io.String.Input(
        "picture_weights", default="", optional=True, advanced=True,
        tooltip="How much each picture of a batch counts, as in '1, 0.5'. Neutral: empty, all alike.",
    ),
    io.Combo.Input(
        "embeds_scaling", options=list(SCALINGS), default=Influence.scaling, optional=True, advanced=True,
        tooltip="How the weight acts: on V' ('V only', the paper's, neutral), on K' too, or less in narrow layers "
        "('C penalty'), which often leaves more room for the text at high weights.",
    ),
    io.Float.Input(
        "rescale", default=Influence.rescale, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
        tooltip="How far the strength of text and picture together is brought back to the text's own, at each place. "
        "Against burnt colours at high weights. Neutral: 0.",
    ),
]  # fmt: skip

DEFAULTS = {row.id: getattr(row, "default", None) for row in (*APPLY_INPUTS, *FACE_INPUTS, *CONTROL_INPUTS)}
POINTS = 128  # places at which a bent curve is read; between them it is taken as straight


def controls(**inputs: Any) -> dict[str, Any]:
    """What `apply_adapter` takes, from a form's inputs by name; those that are not given have their defaults.

    start_percent, end_percent: progress, 0 to 1. weight: a number, or a list with one for each latent.
    Raises ValueError for an empty mask or list, and for texts and curves that cannot be read.
    """
    given = DEFAULTS | inputs
    weight, frames = _weight(given["weight"])
    layers = given["layers"] if given["layer_weights"] is None else given["layer_weights"]
    influence = Influence(
        weight=weight,
        layers=layers,
        curve=_curve(given["curve"], given["curve_values"]).within(given["start_percent"], given["end_percent"]),
        mask=given["mask"],
        frames=frames,
        scaling=given["embeds_scaling"],
        rescale=given["rescale"],
    )
    others = {name: given[name] for name in ("combine", "lora_strength", "shortcut_scale", "negative")}
    return {"influence": influence, **others, "picture_weights": picture_weights(given["picture_weights"])}


def _weight(value: Any) -> tuple[float, tuple[float, ...]]:
    """A weight and its factors by frame, from a number or a list of numbers."""
    if not isinstance(value, list | tuple):
        return value, ()
    if not value:
        raise ValueError("the weight is an empty list: give a number, or one for each latent")
    frames = _numbers("weight", value)
    return (frames[0], ()) if len(set(frames)) == 1 else (1.0, frames)


def _numbers(name: str, values: Sequence[Any]) -> tuple[float, ...]:
    """What is linked to an input, as numbers."""
    numbers = []
    for value in values:
        try:
            numbers.append(float(value))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} has {value!r} in its list: link a list of numbers") from error
    return tuple(numbers)


def _curve(curve: Any, values: float | Sequence[float] | None) -> Curve:
    """A curve from what is connected; 1 all the time where nothing is."""
    if curve is not None and values is not None:
        raise ValueError("both curve and curve_values are connected: disconnect one of them")
    if values is not None:
        return Curve.spread(_numbers("curve_values", [values] if isinstance(values, int | float | str) else values))
    if curve is None:
        return Curve()
    curve = CurveInput.from_raw(curve)
    if not curve.points:
        raise ValueError("the curve has no points: draw at least one in Curve Editor, or disconnect it")
    drawn = {min(max(float(x), 0.0), 1.0) for x, _ in curve.points}
    places = sorted(drawn | {point / POINTS for point in range(POINTS + 1)})
    return Curve(tuple((place, float(curve.interp(place))) for place in places))
