"""Pictures as an image prompt: features of an image encoder, computed when an adapter asks for them."""

from __future__ import annotations

import hashlib
from typing import Any

import comfy.utils
import torch
from torch import Tensor

from ...ipadapter_core import FaceCrop, Feature
from ...ipadapter_core.method.picture import check_finite, encoder_views
from ..encoders import encode_zeros
from ..sized import seeing_size

AT_ONCE = 16  # pictures in one run of the encoder


class ImagePrompt:
    """Reference pictures as an encoder sees them. Features are computed once, at the first use.

    pixels: [P, S, S, 3] of 0..1, P pictures.
    """

    def __init__(self, encoder: Any, pixels: Tensor) -> None:
        self.encoder = encoder
        self.pixels = pixels
        self._features: dict[Feature, Tensor] = {}
        self._zero_states: Tensor | None = None

    @property
    def digest(self) -> str:
        """Of the pictures as the encoder sees them."""
        return digest_of(self.pixels)

    def features(self, feature: Feature, crop: FaceCrop | None = None) -> Tensor:
        """Pooled [P, F] or penultimate [P, S, F] features of the pictures; there are no faces to crop.

        Raises ValueError when the encoder gives NaN.
        """
        if not self._features:
            self._features = encoded(self.encoder, self.pixels)
        return self._features[feature]

    def zero_states(self) -> Tensor:
        """The hidden states [1, S, F] of a picture of zeros, which stand for "no picture" as in the training."""
        if self._zero_states is None:
            self._zero_states = encode_zeros(self.encoder).float()
        return self._zero_states

    def identities(self) -> None:
        """There are no faces known in plain pictures."""


def digest_of(values: Tensor) -> str:
    """SHA-256 of numbers and their shape, the same on every machine."""
    content = values.detach().cpu().float().contiguous()
    return hashlib.sha256(repr(tuple(content.shape)).encode() + content.numpy().tobytes()).hexdigest()


def encoded(encoder: Any, pixels: Tensor) -> dict[Feature, Tensor]:
    """Features of pictures [P, S, S, 3] in fp32, `AT_ONCE` of them at a time, so that long films need no more memory.

    Raises ValueError when the encoder gives NaN.
    """
    parts = [_encoded(encoder, part) for part in pixels.split(AT_ONCE)]
    if len(parts) == 1:
        return parts[0]
    return {feature: torch.cat([part[feature] for part in parts]) for feature in parts[0]}


def _encoded(encoder: Any, pixels: Tensor) -> dict[Feature, Tensor]:
    output = encoder.encode_image(pixels)
    pooled, penultimate = output["image_embeds"].float(), output["penultimate_hidden_states"].float()
    if not (torch.isfinite(pooled).all() and torch.isfinite(penultimate).all()):
        raise ValueError("the image encoder gave NaN: its weights are damaged, or too large for its precision")
    return {"pooled": pooled, "penultimate": penultimate}


def encode(
    encoder: Any, image: Tensor, crop: str, mask: Tensor | None = None, sharpening: float = 0.0, size: int = 0
) -> ImagePrompt:
    """Cut pictures [B, H, W, C] to the encoder's square; outside a mask [M, h, w] they become white.

    sharpening: of the square, 0 (nothing) to 1. size: of the square in pixels, 0 for the encoder's own.
    Raises ValueError for an empty batch, NaN in picture or mask, and for a size that the encoder cannot see.
    """
    if mask is not None:
        image = _on_white(image, mask)
    seeing = seeing_size(encoder, size)
    return ImagePrompt(seeing, encoder_views(image, seeing.image_size, crop, sharpening))


def counted(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """What of pictures [B, H, W, C] counts, as [B, H, W] of 0..1: where they are opaque and a mask [M, h, w] is."""
    alpha = image[..., 3] if image.shape[-1] == 4 else image.new_ones(image.shape[:3])
    return alpha.clamp(0, 1) if mask is None else alpha.clamp(0, 1) * _fitted(image, mask)[..., 0]


def _on_white(image: Tensor, mask: Tensor) -> Tensor:
    mask = _fitted(image, mask)
    rgb, alpha = image[..., :3], image[..., 3:]
    return torch.cat([rgb * mask + (1 - mask), alpha], dim=-1)


def _fitted(image: Tensor, mask: Tensor) -> Tensor:
    """A mask of any size as [B, H, W, 1], one for each picture. Raises ValueError for an empty one, or NaN in it."""
    if 0 in mask.shape:
        raise ValueError(f"the mask has no pixels (shape {tuple(mask.shape)}): connect a mask that is not empty")
    check_finite(mask, "the mask of the reference")
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).to(image)
    mask = comfy.utils.common_upscale(mask, image.shape[2], image.shape[1], "bilinear", "disabled").movedim(1, -1)
    return comfy.utils.repeat_to_batch_size(mask, len(image))
