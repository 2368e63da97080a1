"""The 37 older nodes as a table: id, title, inputs by the rows of `inputs`, outputs, and what does the same here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .inputs import ROWS, Input

APPLY, IMAGE = "Apply IP-Adapter", "Image Prompt"


@dataclass(frozen=True)
class Contract:
    """What a node promises to graphs.

    method: how Python programs call it. required, optional: names of rows. outputs: (type, name). ours: what does the
    same in this pack, for people. is_output: it runs for what it does, not for what it gives.
    """

    id: str
    title: str
    method: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    ours: str
    is_output: bool = False

    @property
    def order(self) -> list[str]:
        """The names of its inputs in their order."""
        return [ROWS[row].name for row in (*self.required, *self.optional)]

    def input_types(self) -> dict[str, Any]:
        """What ComfyUI asks a node for."""

        def entries(rows: tuple[str, ...]) -> dict[str, Any]:
            inputs: list[Input] = [ROWS[row] for row in rows]
            return {one.name: one.entry() for one in inputs}

        types = {"required": entries(self.required)}
        return types | ({"optional": entries(self.optional)} if self.optional else {})


def _rows(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def _outputs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [word.split() for word in _rows(text)]
    return tuple((pair[0], pair[-1]) for pair in pairs)


def _node(id: str, title: str, method: str, required: str, optional: str, outputs: str, ours: str) -> Contract:
    return Contract(id, title, method, _rows(required), _rows(optional), _outputs(outputs), ours)


def _apply(id: str, title: str, required: str, ours: str, optional: str = "", outputs: str = "MODEL") -> Contract:
    """A node that applies an adapter to pictures."""
    optional = f"image_negative, attn_mask, clip_vision, {optional}, exact"
    return _node(id, title, "apply_ipadapter", f"model, ipadapter, {required}", optional, outputs, ours)


WHEN = "start_at, end_at"
FACES = "MODEL, IMAGE face_image"
TILED = "MODEL, IMAGE tiles, MASK masks"
FRAMES = (
    "FLOAT weights, FLOAT weights_invert, INT total_frames, IMAGE image_1, IMAGE image_2, "
    "WEIGHTS_STRATEGY weights_strategy"
)
NODES = (
    _node(
        "IPAdapter", "IPAdapter", "apply_ipadapter",
        f"model, ipadapter, image, weight to 3, {WHEN}, simple weight_type", "attn_mask, exact", "MODEL", IMAGE,
    ),
    _apply(
        "IPAdapterAdvanced", "IPAdapter Advanced",
        f"image, weight to 5, weight_type, combine_embeds, {WHEN}, embeds_scaling", APPLY,
    ),
    _apply(
        "IPAdapterBatch", "IPAdapter Batch (Adv.)",
        f"image, weight to 5, weight_type, {WHEN}, embeds_scaling, encode_batch_size",
        f"{APPLY} with combine 'one for each latent'",
    ),
    _apply(
        "IPAdapterMS", "IPAdapter Mad Scientist",
        f"image, weight to 5, weight_faceidv2, weight_type, combine_embeds, {WHEN}, embeds_scaling, layer_weights",
        f"{APPLY} with Layer Weights", "insightface",
    ),
    _apply(
        "IPAdapterFaceID", "IPAdapter FaceID",
        f"image, weight to 3, weight_faceidv2, weight_type, combine_embeds, {WHEN}, embeds_scaling",
        f"Encode Faces and {APPLY}", "insightface", FACES,
    ),
    _apply(
        "IPAAdapterFaceIDBatch", "IPAdapter FaceID Batch",
        f"image, weight to 3, weight_faceidv2, weight_type, combine_embeds, {WHEN}, embeds_scaling",
        f"Encode Faces and {APPLY} with combine 'one for each latent'", "insightface", FACES,
    ),
    _apply(
        "IPAdapterFaceIDKolors", "IPAdapter FaceID Kolors",
        f"image, weight to 3, weight_faceidv2, weight_kolors, weight_type, combine_embeds, {WHEN}, embeds_scaling",
        f"Encode Faces and {APPLY}", "insightface", FACES,
    ),
    _apply(
        "IPAdapterStyleComposition", "IPAdapter Style & Composition SDXL",
        "image_style, image_composition, weight_style, weight_composition, expand_style, combine_embeds average, "
        f"{WHEN}, embeds_scaling",
        f"two of {APPLY}, with layers 'style' and 'composition'",
    ),
    _apply(
        "IPAdapterStyleCompositionBatch", "IPAdapter Style & Composition Batch SDXL",
        f"image_style, image_composition, weight_style, weight_composition, expand_style, {WHEN}, embeds_scaling",
        f"two of {APPLY}, with layers 'style' and 'composition' and combine 'one for each latent'",
    ),
    _apply(
        "IPAdapterPreciseStyleTransfer", "IPAdapter Precise Style Transfer",
        f"image, weight to 5, style_boost, combine_embeds, {WHEN}, embeds_scaling",
        f"{APPLY} with layers 'style precise'",
    ),
    _apply(
        "IPAdapterPreciseStyleTransferBatch", "IPAdapter Precise Style Transfer Batch",
        f"image, weight to 5, style_boost, combine_embeds, {WHEN}, embeds_scaling",
        f"{APPLY} with layers 'style precise' and combine 'one for each latent'",
    ),
    _apply(
        "IPAdapterPreciseComposition", "IPAdapter Precise Composition",
        f"image, weight to 5, composition_boost, combine_embeds, {WHEN}, embeds_scaling",
        f"{APPLY} with layers 'composition precise'",
    ),
    _apply(
        "IPAdapterPreciseCompositionBatch", "IPAdapter Precise Composition Batch",
        f"image, weight to 5, composition_boost, combine_embeds, {WHEN}, embeds_scaling",
        f"{APPLY} with layers 'composition precise' and combine 'one for each latent'",
    ),
    _apply(
        "IPAdapterClipVisionEnhancer", "IPAdapter ClipVision Enhancer",
        f"image, weight to 5, weight_type, combine_embeds, {WHEN}, embeds_scaling, enhance_tiles, enhance_ratio",
        f"{APPLY} with a fine-grained adapter",
    ),
    _apply(
        "IPAdapterClipVisionEnhancerBatch", "IPAdapter ClipVision Enhancer Batch",
        f"image, weight to 5, weight_type, {WHEN}, embeds_scaling, enhance_tiles, enhance_ratio of a batch, "
        "encode_batch_size",
        f"{APPLY} with a fine-grained adapter and combine 'one for each latent'",
    ),
    _node(
        "IPAdapterTiled", "IPAdapter Tiled", "apply_tiled",
        f"model, ipadapter, image, weight to 3, weight_type, combine_embeds, {WHEN}, sharpening, embeds_scaling",
        "image_negative, attn_mask, clip_vision, exact", TILED, "Regional Prompts with a Region for each part",
    ),
    _node(
        "IPAdapterTiledBatch", "IPAdapter Tiled Batch", "apply_tiled",
        f"model, ipadapter, image, weight to 3, weight_type, {WHEN}, sharpening, embeds_scaling, encode_batch_size",
        "image_negative, attn_mask, clip_vision, exact", TILED, "Regional Prompts with a Region for each part",
    ),
    _node(
        "IPAdapterEmbeds", "IPAdapter Embeds", "apply_ipadapter",
        f"model, ipadapter, pos_embed, weight to 3, weight_type, {WHEN}, embeds_scaling",
        "neg_embed, attn_mask, clip_vision, exact", "MODEL", f"Encode Image Prompt and {APPLY}",
    ),
    _node(
        "IPAdapterEmbedsBatch", "IPAdapter Embeds Batch", "apply_ipadapter",
        f"model, ipadapter, pos_embed, weight to 3, weight_type, {WHEN}, embeds_scaling",
        "neg_embed, attn_mask, clip_vision, exact", "MODEL",
        f"Encode Image Prompt and {APPLY} with combine 'one for each latent'",
    ),
    _node(
        "IPAdapterEncoder", "IPAdapter Encoder", "encode", "ipadapter, image, weight of features",
        "mask, clip_vision, exact", "EMBEDS pos_embed, EMBEDS neg_embed", "Encode Image Prompt",
    ),
    _node(
        "IPAdapterCombineEmbeds", "IPAdapter Combine Embeds", "batch", "embed1, method of embeds",
        "embed2, embed3, embed4, embed5, exact", "EMBEDS", "Combine Image Prompts",
    ),
    Contract(
        "IPAdapterSaveEmbeds", "IPAdapter Save Embeds", "save", ("embeds", "filename_prefix"), (), (),
        "Save Image Prompt", is_output=True,
    ),
    _node(
        "IPAdapterLoadEmbeds", "IPAdapter Load Embeds", "load", "file of embeds", "", "EMBEDS", "Load Image Prompt"
    ),
    _node(
        "IPAdapterRegionalConditioning", "IPAdapter Regional Conditioning", "conditioning",
        f"image, image_weight, prompt_weight, weight_type, {WHEN}", "mask, positive, negative",
        "IPADAPTER_PARAMS, CONDITIONING POSITIVE, CONDITIONING NEGATIVE", "Region",
    ),
    _node(
        "IPAdapterCombineParams", "IPAdapter Combine Params", "combine", "params_1, params_2",
        "params_3, params_4, params_5", "IPADAPTER_PARAMS", "Regional Prompts",
    ),
    _node(
        "IPAdapterFromParams", "IPAdapter from Params", "apply_ipadapter",
        "model, ipadapter, ipadapter_params, combine_embeds, embeds_scaling", "image_negative, clip_vision, exact",
        "MODEL", "Regional Prompts",
    ),
    _node(
        "IPAdapterWeights", "IPAdapter Weights", "weights",
        "weights, timing, frames, start_frame, end_frame, add_starting_frames, add_ending_frames, method", "image",
        FRAMES, "Weights over Frames",
    ),
    _node(
        "IPAdapterWeightsFromStrategy", "IPAdapter Weights From Strategy", "weights", "weights_strategy", "image",
        FRAMES, "Weights over Frames",
    ),
    _node(
        "IPAdapterPromptScheduleFromWeightsStrategy", "Prompt Schedule From Weights Strategy", "prompt_schedule",
        "weights_strategy, prompt", "", "STRING prompt_schedule", "the schedule of the pack that reads it",
    ),
    _node(
        "IPAdapterCombineWeights", "IPAdapter Combine Weights", "combine", "weights_1, weights_2", "",
        "FLOAT weights, INT count", "Weights over Frames",
    ),
    _node(
        "IPAdapterNoise", "IPAdapter Noise", "make_noise", "type, strength, blur", "image_optional", "IMAGE",
        f"the input 'negative' of {APPLY}",
    ),
    _node(
        "PrepImageForClipVision", "Prep Image For ClipVision", "prep_image",
        "image, interpolation, crop_position, sharpening", "", "IMAGE", "the input 'crop' of Encode Image Prompt",
    ),
    _node(
        "IPAdapterModelLoader", "IPAdapter Model Loader", "load_ipadapter_model", "ipadapter_file", "", "IPADAPTER",
        "Load IP-Adapter",
    ),
    _node(
        "IPAdapterInsightFaceLoader", "IPAdapter InsightFace Loader", "load_insightface",
        "provider of three, model_name", "", "INSIGHTFACE", "Encode Faces",
    ),
    _node(
        "IPAdapterUnifiedLoader", "IPAdapter Unified Loader", "load_models", "model, preset", "loaded",
        "MODEL model, IPADAPTER ipadapter", "Load IP-Adapter and Load Image Encoder",
    ),
    _node(
        "IPAdapterUnifiedLoaderFaceID", "IPAdapter Unified Loader FaceID", "load_models",
        "model, preset of faces, lora_strength, provider", "loaded", "MODEL, IPADAPTER ipadapter",
        "Load IP-Adapter, Load Image Encoder and Encode Faces",
    ),
    _node(
        "IPAdapterUnifiedLoaderCommunity", "IPAdapter Unified Loader Community", "load_models",
        "model, preset of others", "loaded", "MODEL model, IPADAPTER ipadapter",
        "Load IP-Adapter and Load Image Encoder",
    ),
)  # fmt: skip
