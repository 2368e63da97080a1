"""Encode Image Prompt: pictures as an image prompt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...ipadapter_core.method.picture import CROPS
from ..prompts.pictures import counted, encode
from ..sized import MAX_SIZE
from ..sockets import CATEGORY, Form, PromptType, shown

ENCODE_INPUTS = [
    io.Combo.Input(
        "crop",
        options=list(CROPS),
        default="centre",
        tooltip="How the square that the encoder sees is cut. 'centre' (neutral) is what adapters were trained with; "
        "'top' keeps heads of portraits, 'pad' shows the whole picture on white, 'letterbox' between black bars, "
        "'stretch' ignores its proportions.",
    ),
]
# Last in every form, and optional, so that saved graphs still open.
VIEW_INPUTS = [
    io.Float.Input(
        "sharpening",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        advanced=True,
        tooltip="Sharpens the square that the encoder sees, so that fine detail counts more: 0 (neutral) is off, a "
        "little above it is weak already, 1 is strongest.",
    ),
    io.Int.Input(
        "size",
        default=0,
        min=0,
        max=MAX_SIZE,
        step=2,
        optional=True,
        advanced=True,
        tooltip="Side of the square that the encoder sees in pixels, for adapters trained at another than its own "
        "(some of ViT-bigG at 448): a multiple of its patches, 14 for most. 0 (neutral) is its own.",
    ),
]


class EncodeImagePrompt(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptEncode",
            display_name="Encode Image Prompt",
            category=CATEGORY,
            description="Turns reference pictures into an image prompt for Apply IP-Adapter.",
            search_aliases=[
                "clip vision encode",
                "IPAdapter Encoder",
                "reference",
                "sharpen reference",
            ],
            has_intermediate_output=True,
            inputs=[
                io.ClipVision.Input("encoder", tooltip="From Load Image Encoder: the one of the adapter's training."),
                io.Image.Input(
                    "image", tooltip="One reference picture or a batch of them. Transparent parts become white."
                ),
                *ENCODE_INPUTS,
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What of the picture counts: outside it becomes white. Any size. Neutral: not connected.",
                ),
                *VIEW_INPUTS,
            ],
            outputs=[
                PromptType.Output(display_name="image prompt"),
                io.Image.Output(display_name="seen", tooltip="Exactly what the encoder sees."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="What of the picture counts, at its size: where it is opaque and the mask is.",
                ),
            ],
        )

    @classmethod
    def execute(cls, encoder: Any, image: Tensor, crop: str, mask: Tensor | None = None, **view: Any) -> io.NodeOutput:
        prompt = encode(encoder, image, crop, mask, **view)
        return io.NodeOutput(prompt, prompt.pixels, counted(image, mask), ui=shown(prompt.pixels))
