"""Apply IP-Adapter, and Image Prompt: the whole chain in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..ipadapter_core import LAYER_WEIGHTS, layer_weights
from . import folders
from .encoders import AUTO, TAGS, load_encoder
from .hosts.fit import check_base, text_projection
from .hosts.lora import with_lora
from .hosts.unet import apply, cross_attention
from .models import CATEGORY, Adapter, AdapterType, LoadAdapter, load_adapter
from .prompts.pictures import ENCODE_INPUTS, PromptType, encode
from .prompts.protocol import Prompt, given_of
from .run import COMBINE, Reference


def apply_adapter(
    model: Any,
    adapter: Adapter,
    prompt: Prompt,
    weight: float = 1.0,
    layers: str = "all",
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    combine: str = COMBINE[0],
    mask: Tensor | None = None,
    lora_strength: float = 1.0,
    shortcut_scale: float = 1.0,
) -> Any:
    """A clone of MODEL that follows the image prompt; the model itself where the weight is 0 or the range is empty.

    Raises ValueError when adapter, model and image prompt do not fit each other, or the mask is empty.
    """
    if weight == 0 or start_percent >= end_percent:
        return model
    if mask is not None and 0 in mask.shape:
        raise ValueError(f"the mask has no pixels (shape {tuple(mask.shape)}): connect a mask that is not empty")
    table = cross_attention(model)
    check_base(adapter, model, table)
    projection = text_projection(adapter, model)
    inputs, unconditional = given_of(prompt, adapter.spec, adapter.name)
    reference = Reference(
        adapter=adapter,
        inputs=inputs,
        unconditional=unconditional,
        layer_weights={index: weight * share for index, share in layer_weights(layers, table).items()},
        start_percent=start_percent,
        end_percent=end_percent,
        combine=combine,
        mask=None if mask is None else mask.reshape(-1, *mask.shape[-2:]),
        shortcut_scale=shortcut_scale,
        text_projection=projection,
    )
    return apply(with_lora(model, adapter, lora_strength, table), reference, table)


WEIGHT = io.Float.Input(
    "weight",
    default=1.0,
    min=-1.0,
    max=3.0,
    step=0.05,
    tooltip="How strongly the picture counts beside the text: 1 is the training's own, 0 (neutral) does nothing; "
    "0.5 to 0.8 leaves room for the text.",
)
APPLY_INPUTS = [
    WEIGHT,
    io.Combo.Input(
        "layers",
        options=list(LAYER_WEIGHTS),
        default=LAYER_WEIGHTS[0],
        tooltip="Which layers follow the picture: 'all' (neutral), those that carry style, composition or both, or all "
        "but the middle block, as older packs did.",
    ),
    io.Float.Input(
        "start_percent", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True,
        tooltip="When in the sampling the picture starts to count, 0 to 1. Neutral: 0.",
    ),
    io.Float.Input(
        "end_percent", default=1.0, min=0.0, max=1.0, step=0.001, advanced=True,
        tooltip="When in the sampling the picture stops to count, 0 to 1. Neutral: 1.",
    ),
    io.Combo.Input(
        "combine", options=list(COMBINE), default=COMBINE[0], advanced=True,
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


class ApplyAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptApply",
            display_name="Apply IP-Adapter",
            category=CATEGORY,
            description="Makes a model follow a picture. Chain any number, in any order with ControlNet and LoRA.",
            search_aliases=["ipadapter", "ip-adapter", "image prompt", "style transfer", "reference"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A UNet model (SD1.5, SD2, SDXL) of the adapter's base, or any fine-tune of it."
                ),
                AdapterType.Input("adapter", tooltip="From Load IP-Adapter."),
                PromptType.Input(
                    "image_prompt", tooltip="From Encode Image Prompt; for FaceID adapters, from Encode Faces."
                ),
                *APPLY_INPUTS,
                *FACE_INPUTS,
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, adapter: Adapter, image_prompt: Prompt, **settings: Any) -> io.NodeOutput:
        return io.NodeOutput(apply_adapter(model, adapter, image_prompt, **settings))


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
        return io.NodeOutput(apply_adapter(model, loaded, prompt, **settings))
