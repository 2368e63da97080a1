"""Apply IP-Adapter, and Image Prompt: the whole chain in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..ipadapter_core import (
    LAYER_WEIGHTS,
    AdapterSpec,
    Layer,
    encoder_of_width,
    layer_weights,
)
from . import folders
from .adapters import CATEGORY, Adapter, AdapterType, LoadAdapter, load_adapter
from .encoders import AUTO, TAGS, load_encoder
from .image_prompt import ENCODE_INPUTS, ImagePrompt, PromptType, encode
from .patch import apply, cross_attention
from .run import COMBINE, Reference


def apply_adapter(
    model: Any,
    adapter: Adapter,
    prompt: ImagePrompt,
    weight: float = 1.0,
    layers: str = "all",
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    combine: str = COMBINE[0],
    mask: Tensor | None = None,
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
    features = prompt.features(adapter.spec.feature)
    check_encoder(adapter, features)
    reference = Reference(
        adapter=adapter,
        features=features,
        unconditional=prompt.unconditional(adapter.spec.feature),
        layer_weights={index: weight * share for index, share in layer_weights(layers, table).items()},
        start_percent=start_percent,
        end_percent=end_percent,
        combine=combine,
        mask=None if mask is None else mask.reshape(-1, *mask.shape[-2:]),
    )
    return apply(model, reference, table)


def check_base(adapter: Adapter, model: Any, table: list[Layer]) -> None:
    """Hold the adapter's layers and widths to the model's. Raises ValueError when they differ."""
    spec = adapter.spec
    unet = model.get_model_object("diffusion_model")
    to_k = [unet.get_submodule(layer.comfyui).to_k for layer in table]
    widths = {layer.index: module.out_features for layer, module in zip(table, to_k)}
    context = to_k[0].in_features
    ours = {index: adapter.model.ip_adapter[str(index)].to_k_ip.out_features for index in spec.layers}
    if ours != widths or spec.context_dim != context:
        found = AdapterSpec.base_of(context, len(table))
        if found == spec.base:
            found += f" with layers {min(widths.values())} to {max(widths.values())} wide"
        raise ValueError(
            f"the adapter {adapter.name} is for {spec.base}, but the model is {found}: "
            f"load an adapter for {found}, or a checkpoint of {spec.base}"
        )


def check_encoder(adapter: Adapter, features: Tensor) -> None:
    """Hold the features' width to the adapter's. Raises ValueError that names the encoder that fits."""
    spec, width = adapter.spec, features.shape[-1]
    if width != spec.feature_dim:
        raise ValueError(
            f"the adapter {adapter.name} expects {spec.feature_dim}-wide {spec.feature} image features, got {width} "
            f"(from {encoder_of_width(spec.feature, width)}): load {spec.encoder} with Load Image Encoder"
        )


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
                PromptType.Input("image_prompt", tooltip="From Encode Image Prompt."),
                *APPLY_INPUTS,
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, adapter: Adapter, image_prompt: ImagePrompt, **settings: Any) -> io.NodeOutput:
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
