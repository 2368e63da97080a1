"""The inputs that say how an image prompt is applied: one table, from which every form that applies one is made.

A new control is a field of `Influence`, a row here, and a line in `controls`.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ipadapter_core import BASE_NAMES, COMBINE, CONCATENATE, LAYER_WEIGHTS, Curve, Influence

MODEL = f"A UNet model ({BASE_NAMES}) of the adapter's base, or any fine-tune of it."
APPLY_INPUTS = [
    io.Float.Input(
        "weight", default=Influence.weight, min=-1.0, max=3.0, step=0.05,
        tooltip="How strongly the picture counts beside the text: 1 is the training's own, 0 (neutral) does nothing; "
        "0.5 to 0.8 leaves room for the text.",
    ),
    io.Combo.Input(
        "layers", options=list(LAYER_WEIGHTS), default=Influence.layers,
        tooltip="Which layers follow the picture: 'all' (neutral), those that carry style, composition or both, or all "
        "but the middle block, as older packs did.",
    ),
    io.Float.Input(
        "start_percent", default=Influence.curve.start, min=0.0, max=1.0, step=0.001, advanced=True,
        tooltip="When in the sampling the picture starts to count, 0 to 1. Neutral: 0.",
    ),
    io.Float.Input(
        "end_percent", default=Influence.curve.end, min=0.0, max=1.0, step=0.001, advanced=True,
        tooltip="When in the sampling the picture stops to count, 0 to 1. Neutral: 1.",
    ),
    io.Combo.Input(
        "combine", options=list(COMBINE), default=CONCATENATE, advanced=True,
        tooltip="What a batch of references means: all at once ('concatenate'), their mean ('average'), or one for "
        "each latent of the batch. For one picture (neutral) all are the same.",
    ),
    io.Mask.Input(
        "mask", optional=True,
        tooltip="Where in the result the picture counts, of any size; a batch gives each latent its own. "
        "Neutral: not connected, everywhere.",
    ),
]  # fmt: skip
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

DEFAULTS = {row.id: getattr(row, "default", None) for row in (*APPLY_INPUTS, *FACE_INPUTS)}


def controls(**inputs: Any) -> dict[str, Any]:
    """What `apply_adapter` takes, from a form's inputs by name; those that are not given have their defaults.

    start_percent, end_percent: progress, 0 to 1. Raises ValueError for an empty mask.
    """
    given = DEFAULTS | inputs
    influence = Influence(
        weight=given["weight"],
        layers=given["layers"],
        curve=Curve.window(given["start_percent"], given["end_percent"]),
        mask=given["mask"],
    )
    others = ("combine", "lora_strength", "shortcut_scale")
    return {"influence": influence} | {name: given[name] for name in others}
