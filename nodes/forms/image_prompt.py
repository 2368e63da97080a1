"""Image Prompt: the whole chain in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...ipadapter_core import headline
from .. import folders
from ..apply import apply_adapter, checked_host, layers_said
from ..encoders import AUTO, load_encoder
from ..find import first_for_pictures
from ..models import load_adapter
from ..prompts.pictures import encode
from ..sockets import CATEGORY, SEARCHED, Form, say, shown, verdict
from .controls import APPLY_INPUTS, CONTROL_INPUTS, MODEL, controls
from .encode import ENCODE_INPUTS, VIEW_INPUTS
from .encoder_choice import DOWNLOADS, check_pair, chosen_encoder, encoder_choices, fingerprint_of, loaded_words


class ImagePromptNode(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePrompt",
            display_name="Image Prompt",
            category=CATEGORY,
            description="Makes a model follow a picture: loads adapter and encoder, encodes the picture and applies "
            "it. The common case in one node.",
            search_aliases=SEARCHED,
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                io.Image.Input("image", tooltip="One reference picture or a batch of them."),
                io.Combo.Input(
                    "adapter",
                    options=folders.adapter_files(),
                    default=first_for_pictures(folders.adapter_files()),
                    tooltip="A file in models/ipadapter, of any name. One that reads faces (FaceID) needs Encode Faces "
                    "and Apply IP-Adapter in place of this node.",
                ),
                io.Combo.Input(
                    "encoder",
                    options=encoder_choices(),
                    default=AUTO,
                    tooltip="The image encoder that the adapter was trained with. 'auto' (neutral) takes the file or "
                    f"folder in models/clip_vision that fits it, whatever its name. {DOWNLOADS}",
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
        return folders.fingerprint(folders.path_of(folders.ADAPTERS, adapter)), fingerprint_of(encoder)

    @classmethod
    def validate_inputs(cls, adapter: str | None = None, encoder: str | None = None) -> bool | str:
        return verdict(lambda: check_pair(adapter, encoder))

    @classmethod
    def execute(
        cls, model: Any, image: Tensor, adapter: str, encoder: str, crop: str, sharpening: float = 0.0, size: int = 0,
        **settings: Any,
    ) -> io.NodeOutput:  # fmt: skip
        loaded = load_adapter(folders.path_of(folders.ADAPTERS, adapter))
        checked_host(model, loaded)  # before an encoder of gigabytes is read
        name, why = chosen_encoder(encoder, loaded.spec, adapter)
        prompt = encode(load_encoder(name), image, crop, sharpening=sharpening, size=size)
        given = controls(**settings)
        patched = apply_adapter(model, loaded, prompt, **given)
        said = headline(loaded.spec, loaded.metadata), loaded_words(name, why, prompt.encoder)
        say(*said, layers_said(model, given["influence"]))
        return io.NodeOutput(patched, ui=shown(prompt.pixels))
