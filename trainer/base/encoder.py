"""The frozen image encoder: open_clip's vision transformer, from a tag, a weights file or a transformers folder.

Shapes: B batch, S sequence of hidden states (class token first), F their width, E width of the pooled embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from torch import Tensor, nn

from ipadapter_core import (
    Encoder,
    Feature,
    encoder_of_open_clip,
    encoder_pixels,
    read_config,
    read_encoder,
    to_open_clip,
)
from ipadapter_core.method.picture import on_white

from .whole import check_weights


class ImageEncoder(nn.Module):
    """Pictures to features. Frozen, in evaluation mode."""

    def __init__(self, facts: Encoder, visual: VisionTransformer, name: str) -> None:
        super().__init__()
        self.facts, self.visual, self.name = facts, visual, name
        self.eval().requires_grad_(False)

    def pixels(self, pictures: list[Image.Image]) -> Tensor:
        """What the encoder sees: its square as its row says (CLIP: the centre), normalised; [B, 3, S, S] on the CPU."""
        return torch.stack([encoder_pixels(on_white(picture), self.facts) for picture in pictures])

    def zero_pixels(self) -> Tensor:
        """A picture that is zero after normalisation, [1, 3, S, S]: the dropped picture of fine-grained adapters."""
        return torch.zeros(1, 3, self.facts.image_size, self.facts.image_size)

    @torch.no_grad()
    def forward(self, pixels: Tensor, feature: Feature) -> Tensor:
        """Normalised pixels [B, 3, S, S] to the pooled embedding [B, E] or the penultimate hidden states [B, S, F]."""
        pixels = pixels.to(self.visual.conv1.weight)
        if feature == "pooled":
            pooled = self.visual(pixels)
            return pooled[0] if isinstance(pooled, tuple) else pooled
        found = self.visual.forward_intermediates(
            pixels,
            indices=[self.facts.depth - 2],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        return torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)


def load_encoder(name: str, architecture: str = "") -> ImageEncoder:
    """The encoder that a config names, in fp32 on the CPU. Raises ValueError when there is none or it does not fit."""
    path = Path(name)
    if not path.exists():
        visual = _from_tag(name)
        return ImageEncoder(encoder_facts(name), visual, name)
    file = read_encoder(path, _named(architecture))
    weights, visual = to_open_clip(file.weights), build_visual(file.encoder)
    expected = visual.state_dict()
    for key, value in expected.items():
        if key not in weights:
            raise ValueError(f"the image encoder {path.name} lacks the weight {key}: download it again")
        if weights[key].shape != value.shape:
            found, wanted = tuple(weights[key].shape), tuple(value.shape)
            raise ValueError(
                f"the image encoder {path.name} has {key} of {found}, expected {wanted}: check its architecture"
            )
    visual.load_state_dict({key: weights[key].float() for key in expected}, assign=True)
    return ImageEncoder(file.encoder, visual, path.name)


def encoder_facts(name: str, architecture: str = "") -> Encoder:
    """What is known of an encoder without building it: from a tag, a file's weights, or a folder's config.

    Raises ValueError when the name is none of these, or the weights are no CLIP image encoder.
    """
    path = Path(name)
    if path.is_dir():
        return read_config(path)
    if path.is_file():
        return read_encoder(path, _named(architecture)).encoder
    known = name.partition("/")[0]
    config = open_clip.get_model_config(known)
    try:
        return encoder_of_open_clip(known, config)
    except ValueError as error:
        raise ValueError(
            f"there is no image encoder {name!r}: give open_clip's ARCHITECTURE/TAG of a vision transformer "
            "(ViT-H-14/laion2b_s32b_b79k), a weights file, or a transformers folder"
        ) from error


def check_encoder(name: str, architecture: str = "") -> None:
    """Raises ValueError for an image encoder that is not there or damaged, without loading it."""
    path = Path(name)
    if not path.exists():
        encoder_facts(name)
        _check_tag(name)
        return
    encoder_facts(name, architecture)
    for file in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        check_weights(file)


def _named(architecture: str) -> Encoder | None:
    """open_clip's architecture of this name; "": none is named."""
    return encoder_of_open_clip(architecture, open_clip.get_model_config(architecture)) if architecture else None


def build_visual(encoder: Encoder) -> VisionTransformer:
    """open_clip's vision transformer of this kind, without its weights: on the meta device it takes no memory."""
    with torch.device("meta"):
        return VisionTransformer(
            image_size=encoder.image_size,
            patch_size=encoder.patch_size,
            width=encoder.width,
            layers=encoder.depth,
            heads=encoder.num_heads,
            mlp_ratio=(encoder.mlp_width + 0.5) / encoder.width,  # the half keeps int(width * ratio) from rounding down
            output_dim=encoder.feature_dim("pooled"),
            act_layer=QuickGELU if encoder.activation == "quick_gelu" else nn.GELU,
        )


def _from_tag(name: str) -> VisionTransformer:
    encoder_facts(name)  # refuses what is no architecture
    _check_tag(name)
    architecture, _, tag = name.partition("/")
    return load_tag(architecture, tag).visual.float()


def _check_tag(name: str) -> None:
    architecture, _, tag = name.partition("/")
    if not tag or tag not in open_clip.list_pretrained_tags_by_model(architecture):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(f"open_clip has no weights {tag!r} for {architecture}: choose one of {tags}")


def load_tag(architecture: str, tag: str) -> Any:
    """open_clip's model with its published weights, downloaded where they are not there yet.

    Raises ValueError when they cannot be fetched.
    """
    try:
        return open_clip.create_model(architecture, pretrained=tag)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"open_clip's {architecture}/{tag} is not on this machine and cannot be fetched ({reason}): fetch it where "
            "there is a network, or name a weights file or folder instead"
        ) from error
