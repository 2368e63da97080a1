"""An image encoder that sees pictures of another size than its own, by interpolated position embeddings."""

from __future__ import annotations

import copy
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

POSITIONS = "vision_model.embeddings.position_embedding.weight"
MAX_SIZE = 1344  # pixels of a side: 96 patches of 14


class Interpolated:
    """The module of a CLIP_VISION with positions for `side` x `side` patches in place of its own.

    They stand in for the duration of a call alone, and the module is the same object for whoever else has it.
    """

    def __init__(self, encoder: Any, side: int) -> None:
        self.encoder = encoder
        self.side = side

    def __call__(self, **inputs: Any) -> Any:
        module = self.encoder.model
        positions = interpolated(module.get_parameter(POSITIONS), self.side)
        return torch.func.functional_call(module, {POSITIONS: positions}, (), inputs)


def interpolated(positions: Tensor, side: int) -> Tensor:
    """Position embeddings [S, F] for `side` x `side` patches, bicubic in fp32; the class token keeps its own."""
    grid = isqrt(len(positions))
    before = len(positions) - grid * grid
    tokens, patches = positions.float().split([before, grid * grid])
    patches = rearrange(patches, "(y x) f -> 1 f y x", y=grid)
    patches = F.interpolate(patches, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([tokens, rearrange(patches, "1 f y x -> (y x) f")])


def seeing_size(encoder: Any, size: int) -> Any:
    """A CLIP_VISION that sees squares of `size` pixels, with the same weights; 0 or its own size: the encoder itself.

    Raises ValueError for an encoder that is not a CLIP, and for a size that is no multiple of its patches.
    """
    if size in (0, encoder.image_size):
        return encoder
    patch = _patch_size(encoder)
    if size % patch or not patch <= size <= MAX_SIZE:
        below = min(max(size // patch, 1), MAX_SIZE // patch) * patch
        nearest = " or ".join(str(one) for one in sorted({below, min(below + patch, MAX_SIZE // patch * patch)}))
        raise ValueError(
            f"this image encoder sees patches of {patch} pixels, and a size of {size} is no multiple of them up to "
            f"{MAX_SIZE}: choose {nearest}, or 0 for its own size ({encoder.image_size})"
        )
    seeing = copy.copy(encoder)  # the same weights and the same patcher, so they are loaded and counted once
    seeing.image_size = size
    seeing.model = Interpolated(encoder, size // patch)
    return seeing


def _patch_size(encoder: Any) -> int:
    vision = getattr(encoder.model, "vision_model", None)
    embeddings = getattr(vision, "embeddings", None)
    if getattr(encoder, "model_type", None) != "clip_vision_model" or embeddings is None:
        raise ValueError("only a CLIP image encoder can see another size than its own: set size to 0, or load a CLIP")
    return embeddings.patch_embedding.kernel_size[0]
