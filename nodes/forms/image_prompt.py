"""Image Prompt: the whole chain in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .. import folders
from ..apply import apply_adapter
from ..encoders import AUTO, TAGS, load_encoder
from ..models import LoadAdapter, load_adapter
from ..prompts.pictures import ENCODE_INPUTS, encode
from ..sockets import CATEGORY
from .controls import APPLY_INPUTS, controls


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
                io.Model.Input(
                    "model", tooltip="A UNet model (SD1.5, SD2, SDXL) of the adapter's base, or any fine-tune of it."
                ),
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
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str, encoder: str, **_: Any) -> Any:
        is_tag = encoder in TAGS
        return LoadAdapter.fingerprint_inputs(adapter), encoder if is_tag else folders.fingerprint(
            folders.path_of(folders.ENCODERS, encoder)
        )

    @classmethod
    def execute(
        cls, model: Any, image: Tensor, adapter: str, encoder: str, crop: str, **settings: Any
    ) -> io.NodeOutput:
        prompt = encode(load_encoder(encoder, AUTO), image, crop)
        loaded = load_adapter(folders.path_of(folders.ADAPTERS, adapter))
        return io.NodeOutput(apply_adapter(model, loaded, prompt, **controls(**settings)))
