"""Encode Image Prompt: pictures as an image prompt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...ipadapter_core.method.picture import CROPS
from ..prompts.pictures import encode
from ..sockets import CATEGORY, PromptType

ENCODE_INPUTS = [
    io.Combo.Input(
        "crop",
        options=list(CROPS),
        default="centre",
        tooltip="How the square that the encoder sees is cut. 'centre' (neutral) is what adapters were trained with; "
        "'top' keeps heads of portraits, 'pad' shows the whole picture on white, 'stretch' ignores its proportions.",
    ),
]


class EncodeImagePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptEncode",
            display_name="Encode Image Prompt",
            category=CATEGORY,
            description="Turns reference pictures into an image prompt for Apply IP-Adapter.",
            search_aliases=["clip vision encode", "ipadapter encoder", "reference"],
            inputs=[
                io.ClipVision.Input("encoder", tooltip="The image encoder that the adapter was trained with."),
                io.Image.Input(
                    "image", tooltip="One reference picture or a batch of them. Transparent parts become white."
                ),
                *ENCODE_INPUTS,
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What of the picture counts: outside it becomes white. Any size. Neutral: not connected.",
                ),
            ],
            outputs=[
                PromptType.Output(display_name="image prompt"),
                io.Image.Output(display_name="seen", tooltip="Exactly what the encoder sees."),
            ],
        )

    @classmethod
    def execute(cls, encoder: Any, image: Tensor, crop: str, mask: Tensor | None = None) -> io.NodeOutput:
        prompt = encode(encoder, image, crop, mask)
        return io.NodeOutput(prompt, prompt.pixels)
