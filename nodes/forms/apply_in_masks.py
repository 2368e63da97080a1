"""Apply in Masks: each picture of an image prompt in its own part of the result."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..apply import layers_said
from ..masked import apply_in_masks
from ..models import Adapter
from ..prompts.protocol import Prompt
from ..sockets import CATEGORY, AdapterType, Form, PromptType, say
from .controls import CONTROL_INPUTS, FACE_INPUTS, MODEL, PLACE_AND_TIME, controls


class ApplyInMasks(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptApplyInMasks",
            display_name="Apply in Masks",
            category=CATEGORY,
            description="Makes a model follow each picture of an image prompt in its own mask: tiles in their places, "
            "faces each in its own.",
            search_aliases=["IPAdapter Tiled", "tile reference", "attention mask", "several faces"],
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                AdapterType.Input("adapter", tooltip="From Load IP-Adapter."),
                PromptType.Input(
                    "image_prompt", tooltip="Several pictures: 'tiles' of Encode Image Tiles, a batch, or faces."
                ),
                io.Mask.Input(
                    "masks",
                    tooltip="Where each picture counts, one mask for each, of any size: 'masks' of Encode Image Tiles.",
                ),
                *PLACE_AND_TIME,
                *FACE_INPUTS,
                *(row for row in CONTROL_INPUTS if row.id != "picture_weights"),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Any, adapter: Adapter, image_prompt: Prompt, masks: Tensor, **settings: Any
    ) -> io.NodeOutput:
        given = controls(**settings)
        patched = apply_in_masks(model, adapter, image_prompt, masks, given)
        say(layers_said(model, given["influence"]))
        return io.NodeOutput(patched)
