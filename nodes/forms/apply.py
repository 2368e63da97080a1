"""Apply IP-Adapter: an adapter and an image prompt on a model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..apply import apply_adapter, layers_said
from ..models import Adapter
from ..prompts.protocol import Prompt
from ..sockets import CATEGORY, SEARCHED, AdapterType, Form, PromptType, say
from .controls import APPLY_INPUTS, CONTROL_INPUTS, FACE_INPUTS, MODEL, controls


class ApplyAdapter(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptApply",
            display_name="Apply IP-Adapter",
            category=CATEGORY,
            description="Makes a model follow a picture. Chain any number, in any order with ControlNet and LoRA.",
            search_aliases=SEARCHED,
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                AdapterType.Input("adapter", tooltip="From Load IP-Adapter."),
                PromptType.Input(
                    "image_prompt", tooltip="From Encode Image Prompt; for FaceID adapters, from Encode Faces."
                ),
                *APPLY_INPUTS,
                *FACE_INPUTS,
                *CONTROL_INPUTS,
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, adapter: Adapter, image_prompt: Prompt, **settings: Any) -> io.NodeOutput:
        given = controls(**settings)
        patched = apply_adapter(model, adapter, image_prompt, **given)
        say(layers_said(model, given["influence"]))
        return io.NodeOutput(patched)
