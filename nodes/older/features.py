"""What the older nodes gave an adapter of pictures: features, and what stood for "no picture".

Shapes: P pictures, S sequence of the encoder's hidden states, F their width, n tiles along a side.
"""

from __future__ import annotations

from typing import Any

import comfy.clip_model
import comfy.model_management
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...ipadapter_core import AdapterSpec, Feature, Given, nothing
from ...ipadapter_core.facts.bases import KOLORS
from ...ipadapter_core.method.picture import check_finite
from ..encoders import encode_zeros
from ..prompts.protocol import check_encoder
from .pictures import square_of


def encoder_size(spec: AdapterSpec) -> int:
    """Pixels of the square that the encoder is shown."""
    return 336 if spec.base == KOLORS.name else 224


def feature_of(spec: AdapterSpec, name: str) -> Feature:
    """What the adapter reads of pictures. Raises ValueError where it reads faces alone."""
    if spec.feature is None:
        raise ValueError(f"{name} ({spec.family}) reads faces alone, no features of pictures: use IPAdapter FaceID")
    return spec.feature


@torch.no_grad()
def encode(
    encoder: Any, image: Tensor, feature: Feature, size: int, batch_size: int = 0, mask: Tensor | None = None
) -> Tensor:
    """Pooled [P, F] or penultimate [P, S, F] features of pictures [P, H, W, C].

    batch_size: how many are encoded at once, 0: all. mask: [M, h, w]; outside of it the normalised pixels are 0.
    Raises ValueError for NaN in picture or mask, and when the encoder gives NaN.
    """
    check_finite(image, "the reference picture")
    if mask is not None:
        check_finite(mask, "the mask of the reference")
    comfy.model_management.load_model_gpu(encoder.patcher)
    where = None if mask is None else square_of(mask.reshape(-1, 1, *mask.shape[-2:]).float(), size)
    found = []
    for part in torch.split(torch.arange(len(image)), batch_size or len(image)):
        pixels = comfy.clip_model.clip_preprocess(image[part].to(encoder.load_device), size).float()
        if where is not None:
            pixels = pixels * where[part.clamp(max=len(where) - 1)].to(pixels)
        output = encoder.model(pixel_values=pixels, intermediate_output=-2)
        found.append(output[2] if feature == "pooled" else output[1])
    features = torch.cat(found).to(comfy.model_management.intermediate_device()).float()
    if not torch.isfinite(features).all():
        raise ValueError("the image encoder gave NaN: its weights are damaged, or too large for its precision")
    return features


def black(encoder: Any, feature: Feature, size: int) -> Tensor:
    """Features of a black picture, one row."""
    return encode(encoder, torch.zeros(1, size, size, 3), feature, size)


def no_picture(spec: AdapterSpec, given: Given, encoder: Any, exact: bool) -> Given:
    """What stood for "no picture", one row: zeros, or a black picture's hidden states; exact: as in the training."""
    if exact:
        return nothing(spec, given, lambda: encode_zeros(encoder).float())
    features = given.features
    if features is not None:
        is_pooled = spec.feature == "pooled"
        features = torch.zeros_like(features[:1]) if is_pooled else black(encoder, "penultimate", encoder_size(spec))
    return Given(features, None if given.identities is None else torch.zeros_like(given.identities[:1]))


def checked(spec: AdapterSpec, name: str, features: Tensor) -> Tensor:
    """Features that fit the adapter. Raises ValueError that names the encoder that fits."""
    check_encoder(spec, name, features)
    return features


def enhanced(encoder: Any, image: Tensor, feature: Feature, size: int, tiles: int, ratio: float, batch: int) -> Tensor:
    """Features of pictures with those of their n x n parts, laid side by side and averaged back to one picture's size.

    One picture gives two rows, itself times `ratio` and its parts; several give a mixture of both each.
    """
    whole = encode(encoder, image, feature, size, batch)
    if tiles <= 1:
        return whole
    height, width = image.shape[1] // tiles, image.shape[2] // tiles
    if not height or not width:
        raise ValueError(f"a picture of {image.shape[2]} x {image.shape[1]} pixels has no {tiles} x {tiles} parts")
    cut = image[:, : tiles * height, : tiles * width]
    parts = rearrange(cut, "p (y h) (x w) c -> (p y x) h w c", y=tiles, x=tiles)
    merged = _merged(encode(encoder, parts, feature, size, batch), tiles)
    if len(image) == 1:
        return torch.cat([whole * ratio, merged])
    return whole * ratio + merged * (1 - ratio)


def _merged(features: Tensor, n: int) -> Tensor:
    """Features of the n^2 parts of each picture, rows first, as one picture's."""
    if features.ndim == 2:
        side = round(features.shape[-1] ** 0.5)
        if side * side != features.shape[-1]:
            raise ValueError(
                f"tiles are merged as squares, and this encoder's features are {features.shape[-1]} wide, which is no "
                "square: use an adapter of ViT-H, or one tile"
            )
        grids = rearrange(features, "(p y x) (h w) -> p 1 (y h) (x w)", y=n, x=n, h=side)
        return rearrange(F.avg_pool2d(grids, n), "p 1 h w -> p (h w)")
    side = round((features.shape[1] - 1) ** 0.5)
    classes = rearrange(features[:, :1], "(p n) s f -> p n s f", n=n * n).mean(1)
    grids = rearrange(features[:, 1:], "(p y x) (h w) f -> p f (y h) (x w)", y=n, x=n, h=side)
    return torch.cat([classes, rearrange(F.avg_pool2d(grids, n), "p f h w -> p (h w) f")], dim=1)
