"""The inputs of the older nodes, one row each: name, type, settings, what it does; `contract` says who has which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import folder_paths
from PIL import Image

from ...ipadapter_core import SCALINGS
from .. import folders

WEIGHT_TYPES = (
    "linear", "ease in", "ease out", "ease in-out", "reverse in-out", "weak input", "weak output", "weak middle",
    "strong middle", "style transfer", "composition", "strong style transfer", "style and composition",
    "style transfer precise", "composition precise",
)  # fmt: skip
SIMPLE_TYPES = {"standard": "linear", "prompt is more important": "ease out", "style transfer": "style transfer"}
CONCAT = "concat"
COMBINE = (CONCAT, "add", "subtract", "average", "norm average")
COMBINE_EMBEDS = (*COMBINE, "max", "min")
NOISES = ("fade", "dissolve", "gaussian", "shuffle")
TIMINGS = ("custom", "linear", "ease_in_out", "ease_in", "ease_out", "random")
METHODS = ("full batch", "shift batches", "alternate batches")
FILTERS = {
    name: getattr(Image.Resampling, name) for name in ("LANCZOS", "BICUBIC", "HAMMING", "BILINEAR", "BOX", "NEAREST")
}
POSITIONS = ("top", "bottom", "left", "right", "center", "pad")
PRESETS = (
    "LIGHT - SD1.5 only (low strength)",
    "STANDARD (medium strength)",
    "VIT-G (medium strength)",
    "PLUS (high strength)",
    "PLUS FACE (portraits)",
    "FULL FACE - SD1.5 only (portraits stronger)",
)
FACE_PRESETS = (
    "FACEID",
    "FACEID PLUS - SD1.5 only",
    "FACEID PLUS V2",
    "FACEID PORTRAIT (style transfer)",
    "FACEID PORTRAIT UNNORM - SDXL only (strong)",
)
COMMUNITY_PRESETS = ("Composition", "Kolors")
EMBEDS = ".ipadpt"


def embeds_files() -> list[str]:
    """Saved embeds in ComfyUI's folder of inputs, by their path in it."""
    root = Path(folder_paths.get_input_directory())
    return sorted(path.relative_to(root).as_posix() for path in root.rglob(f"*{EMBEDS}") if path.is_file())


@dataclass(frozen=True)
class Input:
    """An input as ComfyUI's first kind of nodes has it. kind: a type's name, choices, or what gives them."""

    name: str
    kind: str | Sequence[str] | Callable[[], list[str]]
    tooltip: str
    settings: dict[str, Any] = field(default_factory=dict)

    def entry(self) -> tuple[Any, dict[str, Any]]:
        """(type or list of choices, settings)."""
        kind = self.kind if isinstance(self.kind, str) else list(self.kind() if callable(self.kind) else self.kind)
        return kind, {**self.settings, "tooltip": self.tooltip}


def _number(name: str, default: float, low: float, high: float, tooltip: str, step: float = 0.05) -> Input:
    return Input(name, "FLOAT", tooltip, {"default": default, "min": low, "max": high, "step": step})


def _count(name: str, default: int, low: int, high: int, tooltip: str, **more: int) -> Input:
    return Input(name, "INT", tooltip, {"default": default, "min": low, "max": high, **more})


def _text(name: str, default: str, tooltip: str, **more: bool) -> Input:
    return Input(name, "STRING", tooltip, {"default": default, **more})


WEIGHT = "How strongly the picture counts: 1 as in the training, 0 (neutral) nothing, below 0 away from it."
FACE_WEIGHT = "FaceID plus v2: how much the face's picture counts beside its identity. Neutral: 1."
BOOST = "Weight of the layers that the other kind of content is pushed out of. Neutral: 0."
METHOD = "What several pictures mean: all side by side ('concat', neutral), or one made of them."
TILES = "Into how many parts along each side the picture is also looked at. Neutral: 1."
RATIO = "How much the whole picture counts beside its parts, 0 to 1."
EMBED = "Features of pictures from the encoder node."
PROVIDER = "What insightface runs on; CPU always works."
TOGETHER = "A list of weights or one weight."

ROWS: dict[str, Input] = {
    "model": Input("model", "MODEL", "The model that is to follow the picture."),
    "ipadapter": Input("ipadapter", "IPADAPTER", "From a loader of these nodes."),
    "loaded": Input("ipadapter", "IPADAPTER", "From another loader: its encoder and face model are used again."),
    "image": Input("image", "IMAGE", "The picture to follow, or several."),
    "image_style": Input("image_style", "IMAGE", "The picture whose style is followed."),
    "image_composition": Input("image_composition", "IMAGE", "The picture whose composition is followed."),
    "image_optional": Input("image_optional", "IMAGE", "The picture to make noise of; without it the noise is plain."),
    "image_negative": Input("image_negative", "IMAGE", "What the result moves away from. Neutral: not connected."),
    "attn_mask": Input("attn_mask", "MASK", "Where the picture counts. Neutral: not connected, everywhere."),
    "mask": Input("mask", "MASK", "Which part of the picture counts. Neutral: not connected, all of it."),
    "clip_vision": Input("clip_vision", "CLIP_VISION", "An image encoder in place of the loader's own."),
    "insightface": Input("insightface", "INSIGHTFACE", "A face model in place of the loader's own."),
    "pos_embed": Input("pos_embed", "EMBEDS", EMBED),
    "neg_embed": Input("neg_embed", "EMBEDS", f"{EMBED} In place of no picture. Neutral: not connected."),
    "embeds": Input("embeds", "EMBEDS", EMBED),
    **{f"embed{n}": Input(f"embed{n}", "EMBEDS", EMBED) for n in range(1, 6)},
    "ipadapter_params": Input("ipadapter_params", "IPADAPTER_PARAMS", "From Regional Conditioning, or several."),
    **{f"params_{n}": Input(f"params_{n}", "IPADAPTER_PARAMS", "From Regional Conditioning.") for n in range(1, 6)},
    "weights_strategy": Input("weights_strategy", "WEIGHTS_STRATEGY", "From IPAdapter Weights."),
    "positive": Input("positive", "CONDITIONING", "The text of this region; it counts within the mask."),
    "negative": Input("negative", "CONDITIONING", "The negative text of this region; it counts within the mask."),
    "weight to 3": _number("weight", 1.0, -1, 3, WEIGHT),
    "weight to 5": _number("weight", 1.0, -1, 5, WEIGHT),
    "weight of features": _number("weight", 1.0, -1.0, 3.0, "A factor of the features. Neutral: 1.", 0.01),
    "weight_style": _number("weight_style", 1.0, -1, 5, WEIGHT),
    "weight_composition": _number("weight_composition", 1.0, -1, 5, WEIGHT),
    "image_weight": _number("image_weight", 1.0, -1.0, 3.0, WEIGHT),
    "prompt_weight": _number("prompt_weight", 1.0, 0.0, 10.0, "How strongly the text counts in its mask. Neutral: 1."),
    "weight_faceidv2": _number("weight_faceidv2", 1.0, -1, 5.0, FACE_WEIGHT),
    "weight_kolors": _number("weight_kolors", 1.0, -1, 5.0, "Kolors: a factor of the image tokens. Neutral: 1."),
    "style_boost": _number("style_boost", 1.0, -5, 5, BOOST),
    "composition_boost": _number("composition_boost", 0.0, -5, 5, BOOST),
    "enhance_ratio": _number("enhance_ratio", 1.0, 0.0, 1.0, RATIO),
    "enhance_ratio of a batch": _number("enhance_ratio", 0.5, 0.0, 1.0, RATIO),
    "start_at": _number("start_at", 0.0, 0.0, 1.0, "When in the sampling it starts to count. Neutral: 0.", 0.001),
    "end_at": _number("end_at", 1.0, 0.0, 1.0, "When in the sampling it stops to count. Neutral: 1.", 0.001),
    "sharpening": _number("sharpening", 0.0, 0.0, 1.0, "How much the picture is sharpened first. Neutral: 0."),
    "strength": _number("strength", 1.0, 0, 1, "How much noise, 0 to 1."),
    "lora_strength": _number("lora_strength", 0.6, 0, 1, "Strength of the adapter's LoRA. Neutral: 0.", 0.01),
    "weights_1": _number("weights_1", 0.0, 0.0, 1.0, TOGETHER),
    "weights_2": _number("weights_2", 0.0, 0.0, 1.0, TOGETHER),
    "enhance_tiles": _count("enhance_tiles", 2, 1, 16, TILES),
    "encode_batch_size": _count("encode_batch_size", 0, 0, 4096, "Pictures encoded at once; 0 (neutral): all."),
    "blur": _count("blur", 0, 0, 32, "Size of a blur in pixels. Neutral: 0.", step=1),
    "frames": _count("frames", 0, 0, 9999, "How many weights there are for each picture.", step=1),
    "start_frame": _count("start_frame", 0, 0, 9999, "Where the change begins.", step=1),
    "end_frame": _count("end_frame", 9999, 0, 9999, "Where the change ends.", step=1),
    "add_starting_frames": _count("add_starting_frames", 0, 0, 9999, "Frames before the first. Neutral: 0.", step=1),
    "add_ending_frames": _count("add_ending_frames", 0, 0, 9999, "Frames after the last. Neutral: 0.", step=1),
    "weight_type": Input("weight_type", WEIGHT_TYPES, "Which layers follow the picture. Neutral: 'linear', all."),
    "simple weight_type": Input("weight_type", tuple(SIMPLE_TYPES), "How the picture is used. Neutral: 'standard'."),
    "combine_embeds": Input("combine_embeds", COMBINE, METHOD),
    "combine_embeds average": Input("combine_embeds", COMBINE, METHOD, {"default": "average"}),
    "method of embeds": Input("method", COMBINE_EMBEDS, METHOD),
    "embeds_scaling": Input("embeds_scaling", SCALINGS, "How the weight acts on keys and values. Neutral: 'V only'."),
    "expand_style": Input("expand_style", "BOOLEAN", "Style in all layers but composition's.", {"default": False}),
    "layer_weights": _text("layer_weights", "", "'layer:weight, ..'. Neutral: empty, the weight type.", multiline=True),
    "weights": _text("weights", "1.0, 0.0", "Numbers, by commas or lines.", multiline=True),
    "prompt": _text("prompt", "", "A text for each picture, one a line.", multiline=True),
    "filename_prefix": _text("filename_prefix", "IP_embeds", "Of the file in ComfyUI's folder of outputs."),
    "type": Input("type", NOISES, "The kind of noise."),
    "timing": Input("timing", TIMINGS, "How the weight goes from the first to the last.", {"default": "linear"}),
    "method": Input("method", METHODS, "How pictures follow one another.", {"default": "full batch"}),
    "interpolation": Input("interpolation", tuple(FILTERS), "How the picture is resized."),
    "crop_position": Input("crop_position", POSITIONS, "Which square of the picture is kept."),
    "preset": Input("preset", PRESETS, "Which adapter is loaded; the model says for which base."),
    "preset of faces": Input("preset", FACE_PRESETS, "Which adapter is loaded; the model says for which base."),
    "preset of others": Input("preset", COMMUNITY_PRESETS, "Which adapter is loaded; the model says for which base."),
    "provider": Input("provider", ("CPU", "CUDA", "ROCM", "DirectML", "OpenVINO", "CoreML"), PROVIDER),
    "provider of three": Input("provider", ("CPU", "CUDA", "ROCM"), PROVIDER),
    "model_name": Input("model_name", ("buffalo_l", "antelopev2"), "A folder in models/insightface/models."),
    "ipadapter_file": Input("ipadapter_file", folders.adapter_files, "A file in models/ipadapter."),
    "file of embeds": Input("embeds", embeds_files, "A file in ComfyUI's folder of inputs."),
    "exact": Input(
        "exact", "BOOLEAN",
        "Off (neutral): the same numbers as in the older pack. On: as adapters were trained: the middle block too, the "
        "training's own 'no picture', masks on each layer's true grid, every latent its own picture in all windows.",
        {"default": False, "advanced": True},
    ),
}  # fmt: skip
