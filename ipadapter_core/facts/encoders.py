"""The image encoders that adapters are made for: one row each, and what a row says of an encoder.

Shapes of what an encoder gives: pooled embedding [P, E]; hidden states [P, S, F], the class token first if it has one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..method.picture import square
from ..method.spec import AdapterSpec, Feature

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Encoder:
    """Everything about an image encoder but its weights.

    image_size, patch_size: pixels of a side. width: F. depth: its layers. embed_dim: E; None: it has no pooled
    embedding. mean, std: of its normalised pixels, by channel. fit: how a picture becomes a square by default, "cut" at
    the longer side or "stretch". activation: of its MLPs.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_width: int
    embed_dim: int | None
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    kind: Literal["clip"] = "clip"
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    fit: Literal["cut", "stretch"] = "cut"
    has_class_token: bool = True

    @property
    def num_states(self) -> int:
        """S, the hidden states of one picture."""
        return (self.image_size // self.patch_size) ** 2 + self.has_class_token

    def feature_dim(self, feature: Feature) -> int:
        """Width of a feature. Raises ValueError where the encoder has no pooled embedding."""
        if feature != "pooled":
            return self.width
        if self.embed_dim is None:
            raise ValueError("this image encoder has no pooled embedding, which the adapter reads: choose another one")
        return self.embed_dim


def encoder_pixels(image: Image.Image, encoder: Encoder) -> Tensor:
    """What an encoder sees of an RGB picture, normalised: [3, S, S], S its image size."""
    return normalised_square(encoder_square(image, encoder), encoder)


def encoder_square(image: Image.Image, encoder: Encoder) -> Tensor:
    """What an encoder sees of an RGB picture, in bytes: [3, S, S], S its image size."""
    cut = square(image, encoder.image_size, "stretch" if encoder.fit == "stretch" else "centre")
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1)


def normalised_square(values: Tensor, encoder: Encoder) -> Tensor:
    """Bytes [..., 3, S, S] as an encoder reads them, fp32, on their device."""
    mean, std = (_channels(numbers, values.device) for numbers in (encoder.mean, encoder.std))
    return (values.float() / 255 - mean) / std


@lru_cache
def _channels(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    # kept: to copy them each time would make the host wait for a GPU
    return torch.tensor(numbers, device=device).view(3, 1, 1)


VIT_L = Encoder(224, 14, width=1024, depth=24, num_heads=16, mlp_width=4096, embed_dim=768)
VIT_H = Encoder(224, 14, width=1280, depth=32, num_heads=16, mlp_width=5120, embed_dim=1024)
VIT_BIG_G = Encoder(224, 14, width=1664, depth=48, num_heads=16, mlp_width=8192, embed_dim=1280)
VIT_L_OPENAI = replace(VIT_L, activation="quick_gelu")
VIT_B_OPENAI = Encoder(224, 16, 768, 12, num_heads=12, mlp_width=3072, embed_dim=512, activation="quick_gelu")
# open_clip's names. One with "quickgelu" is OpenAI's own; the plain one was trained by others with GELU.
ARCHITECTURES = {
    "ViT-H-14": VIT_H,
    "ViT-bigG-14": VIT_BIG_G,
    "ViT-L-14": VIT_L,
    "ViT-L-14-quickgelu": VIT_L_OPENAI,
    "ViT-L-14-336": replace(VIT_L, image_size=336),
    "ViT-L-14-336-quickgelu": replace(VIT_L_OPENAI, image_size=336),
}


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder that published adapters read.

    tag: open_clip's ARCHITECTURE/TAG. place: where its files are. url: one file of it, of size gigabytes. tag_size:
    gigabytes that open_clip downloads for the tag, which is the whole CLIP in fp32.
    """

    name: str
    tag: str
    place: str
    url: str
    size: float
    tag_size: float

    @property
    def encoder(self) -> Encoder:
        return ARCHITECTURES[self.tag.partition("/")[0]]

    @property
    def files(self) -> str:
        """Where to get it, in words."""
        return f"{self.place}, or open_clip's {self.tag}"


HUB = "https://huggingface.co"
ENCODERS = (
    PublishedEncoder(
        "CLIP ViT-H/14", "ViT-H-14/laion2b_s32b_b79k", "clip_vision_h.safetensors of Comfy-Org",
        f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/clip_vision/clip_vision_h.safetensors",
        1.3, 3.9,
    ),
    PublishedEncoder(
        "CLIP ViT-bigG/14", "ViT-bigG-14/laion2b_s39b_b160k", "sdxl_models/image_encoder of h94/IP-Adapter",
        f"{HUB}/h94/IP-Adapter/resolve/main/sdxl_models/image_encoder/model.safetensors", 3.7, 10.2,
    ),
    PublishedEncoder(
        "CLIP ViT-L/14", "ViT-L-14-quickgelu/openai", "openai/clip-vit-large-patch14",
        f"{HUB}/openai/clip-vit-large-patch14/resolve/main/model.safetensors", 1.7, 1.7,
    ),
    PublishedEncoder(
        "CLIP ViT-L/14-336", "ViT-L-14-336-quickgelu/openai", "openai/clip-vit-large-patch14-336",
        f"{HUB}/openai/clip-vit-large-patch14-336/resolve/main/pytorch_model.bin", 1.7, 1.7,
    ),
)  # fmt: skip
# What weights alone do not tell (heads, activation) is that of the published encoder of the same width.
BY_WIDTH = {encoder.width: encoder for encoder in (VIT_B_OPENAI, VIT_L_OPENAI, VIT_H, VIT_BIG_G)}


def find_encoder(feature: Feature, width: int, length: int | None = None) -> PublishedEncoder | None:
    """The published encoder whose `feature` is `width` wide, with `length` hidden states where that is known."""
    found = [one for one in ENCODERS if one.encoder.feature_dim(feature) == width]
    fitting = [one for one in found if length == one.encoder.num_states]
    return next(iter(fitting or found), None)


def encoder_words(feature: Feature, width: int, length: int | None = None) -> str:
    """The encoder whose `feature` is `width` wide, for people: its name, or the width where nobody has it."""
    found = find_encoder(feature, width, length)
    return found.name if found else f"an encoder with {width}-wide {feature} features"


def encoder_name(spec: AdapterSpec) -> str:
    """The image encoder that an adapter reads, for people."""
    if spec.feature is None:
        return "no image encoder"
    return encoder_words(spec.feature, spec.feature_dim, spec.feature_length)


def encoder_of(spec: AdapterSpec) -> PublishedEncoder | None:
    """The published encoder that an adapter reads; None where it reads none, or nobody's."""
    return None if spec.feature is None else find_encoder(spec.feature, spec.feature_dim, spec.feature_length)
