"""Image Prompt: the whole chain in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .. import folders
from ..apply import apply_adapter, layers_said
from ..encoders import AUTO, TAGS, load_encoder
from ..models import load_adapter
from ..prompts.pictures import encode
from ..sockets import CATEGORY, say, shown
from .controls import APPLY_INPUTS, CONTROL_INPUTS, MODEL, controls
from .encode import ENCODE_INPUTS, VIEW_INPUTS


class ImagePromptNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePrompt",
            display_name="Image Prompt",
            category=CATEGORY,
            description="Loads adapter and encoder, encodes the picture and applies it: the common case in one node.",
            search_aliases=["ipadapter", "ip-adapter", "reference", "style transfer"],
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                io.Image.Input("image", tooltip="One reference picture or a batch of them."),
                io.Combo.Input(
                    "adapter", options=folders.adapter_files(), tooltip="A file in models/ipadapter, of any name."
                ),
                io.Combo.Input(
                    "encoder",
                    options=folders.encoder_files() + TAGS,
                    tooltip="The image encoder that the adapter was trained with: a file or folder in "
                    "models/clip_vision, or an open_clip tag to download.",
                ),
                *ENCODE_INPUTS,
                *APPLY_INPUTS,
                *CONTROL_INPUTS,
                *VIEW_INPUTS,
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str, encoder: str, **_: Any) -> Any:
        of_encoder = encoder if encoder in TAGS else folders.fingerprint(folders.path_of(folders.ENCODERS, encoder))
        return folders.fingerprint(folders.path_of(folders.ADAPTERS, adapter)), of_encoder

    @classmethod
    def execute(
        cls, model: Any, image: Tensor, adapter: str, encoder: str, crop: str, sharpening: float = 0.0, size: int = 0,
        **settings: Any,
    ) -> io.NodeOutput:  # fmt: skip
        prompt = encode(load_encoder(encoder, AUTO), image, crop, sharpening=sharpening, size=size)
        loaded = load_adapter(folders.path_of(folders.ADAPTERS, adapter))
        given = controls(**settings)
        patched = apply_adapter(model, loaded, prompt, **given)
        say(cls, layers_said(model, given["influence"]))
        return io.NodeOutput(patched, ui=shown(prompt.pixels))
