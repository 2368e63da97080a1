"""Load Image Encoder: a file, a folder or a tag as ComfyUI's own CLIP_VISION."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ipadapter_core import ARCHITECTURES
from .. import folders
from ..encoders import AUTO, OPEN_CLIP, TAGS, load_encoder
from ..sockets import CATEGORY


class LoadEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptLoadEncoder",
            display_name="Load Image Encoder",
            category=CATEGORY,
            description="Loads a CLIP image encoder, open_clip's or transformers': a file, a folder or a tag.",
            search_aliases=["clip vision", "open_clip", "image encoder"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=folders.encoder_files() + TAGS,
                    tooltip="A file or transformers folder in models/clip_vision, or an open_clip tag, which is "
                    "downloaded once. Most adapters for SD1.5, and the SDXL ones named vit-h, need ViT-H/14; the other "
                    "SDXL ones ViT-bigG/14.",
                ),
                io.Combo.Input(
                    "architecture",
                    options=[AUTO, *ARCHITECTURES],
                    default=AUTO,
                    advanced=True,
                    tooltip="open_clip's name of the architecture. 'auto' (neutral) is right for published encoders; "
                    "choose ViT-L-14 for a ViT-L that was trained by open_clip with GELU.",
                ),
            ],
            outputs=[io.ClipVision.Output(display_name="encoder")],
        )

    @classmethod
    def fingerprint_inputs(cls, weights: str, architecture: str) -> Any:
        if weights.startswith(OPEN_CLIP):
            return weights
        return folders.fingerprint(folders.path_of(folders.ENCODERS, weights)), architecture

    @classmethod
    def execute(cls, weights: str, architecture: str) -> io.NodeOutput:
        return io.NodeOutput(load_encoder(weights, architecture))
