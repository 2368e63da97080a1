"""Load Image Encoder: a file, a folder or a tag as ComfyUI's own CLIP_VISION."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ipadapter_core import ARCHITECTURES
from ..encoders import AUTO, load_encoder
from ..models import Adapter
from ..sockets import CATEGORY, AdapterType, Form, say, verdict
from .encoder_choice import DOWNLOADS, check_choice, chosen_encoder, encoder_choices, fingerprint_of, loaded_words


class LoadEncoder(Form):
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
                    options=encoder_choices(),
                    default=AUTO,
                    tooltip="A file or transformers folder in models/clip_vision. 'auto' (neutral): the one that the "
                    "connected adapter needs, whatever its name; with none connected, the only one there is. "
                    f"{DOWNLOADS}",
                ),
                io.Combo.Input(
                    "architecture",
                    options=[AUTO, *ARCHITECTURES],
                    default=AUTO,
                    advanced=True,
                    tooltip="open_clip's name of the architecture. 'auto' (neutral) is right for published encoders; "
                    "choose ViT-L-14 for a ViT-L that was trained by open_clip with GELU.",
                ),
                AdapterType.Input(
                    "adapter",
                    optional=True,
                    tooltip="From Load IP-Adapter: 'auto' takes the encoder that it needs. Neutral: not connected.",
                ),
            ],
            outputs=[io.ClipVision.Output(display_name="encoder")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, weights: str, architecture: str, **_: Any) -> Any:
        return fingerprint_of(weights), architecture

    @classmethod
    def validate_inputs(cls, weights: str | None = None) -> bool | str:
        return verdict(lambda: None if weights is None else check_choice(weights))

    @classmethod
    def execute(cls, weights: str, architecture: str, adapter: Adapter | None = None) -> io.NodeOutput:
        wanted = (None,) if adapter is None else (adapter.spec, adapter.name)
        name, why = chosen_encoder(weights, *wanted)
        encoder = load_encoder(name, architecture)
        say(loaded_words(name, why, encoder))
        return io.NodeOutput(encoder)
