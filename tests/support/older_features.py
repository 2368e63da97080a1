"""Features and image tokens as the older pack makes them from pictures, written from its behaviour.

Encoders are transformers', projections those of the package `ip-adapter` and of diffusers.
Shapes: P pictures, S positions of the encoder, F their width, T image tokens, C their width.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from tests.support import clip_models, oracles
from tests.support.older_pictures import bicubic, centre

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


@functools.cache
def encoder_config() -> Any:
    """ViT-H's widths and head, two layers, and patches of 56 pixels: 17 positions in place of 257."""
    config = clip_models.vision_config("ViT-H-14", layers=2)
    config.patch_size, config.intermediate_size = 56, 320
    return config


@functools.cache
def encoder_weights() -> dict[str, Tensor]:
    return clip_models.random_weights(encoder_config())


@functools.cache
def encoder() -> Any:
    weights = encoder_weights()
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(encoder_config())
    model.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False, assign=True)
    positions = len(weights["vision_model.embeddings.position_embedding.weight"])
    model.vision_model.embeddings.position_ids = torch.arange(positions)[None]
    return model.eval().requires_grad_(False)


def normalised(pictures: Tensor) -> Tensor:
    """IMAGE [P, H, W, C] to normalised pixels [P, 3, 224, 224]: short side to 224, centre crop, rounded to 1/255."""
    x = pictures[..., :3].movedim(-1, 1)
    height, width = x.shape[2:]
    if (height, width) != (224, 224):
        scale = 224 / min(height, width)
        x = bicubic(x, (round(scale * height), round(scale * width)))
        top, left = (x.shape[2] - 224) // 2, (x.shape[3] - 224) // 2
        x = x[:, :, top : top + 224, left : left + 224]
    return ((255 * x).clamp(0, 255).round() / 255 - MEAN) / STD


def states(pixels: Tensor, kind: str) -> Tensor:
    """Features of normalised pixels: pooled [P, F] or penultimate [P, S, F]."""
    with torch.inference_mode():
        found = encoder()(pixels, output_hidden_states=True)
    return found.image_embeds if kind == "pooled" else found.hidden_states[-2]


def masked(pictures: Tensor, mask: Tensor | None, kind: str) -> Tensor:
    """With a mask [1, h, w] on the normalised pixels."""
    pixels = normalised(pictures)
    if mask is not None:
        side = min(mask.shape[1:])
        pixels = pixels * bicubic(centre(mask, side, side, (1, 2))[:, None], (224, 224))
    return states(pixels, kind)


@functools.cache
def black(kind: str, exact: bool = False) -> Tensor:
    """What stands for "no picture" [1, ...]: zeros, or the states of a black picture (exact: of normalised zeros)."""
    if kind == "pooled":
        return torch.zeros(1, 1024)
    return states(torch.zeros(1, 3, 224, 224) if exact else normalised(torch.zeros(1, 224, 224, 3)), kind)


def enhanced(pictures: Tensor, tiles: int, ratio: float, kind: str) -> Tensor:
    """With what the encoder sees in tiles x tiles parts of each picture."""
    whole = states(normalised(pictures), kind)
    if tiles == 1:
        return whole
    height, width = (side // tiles for side in pictures.shape[1:3])
    merged = []
    for picture in pictures:
        parts = torch.stack([
            picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
            for row in range(tiles) for column in range(tiles)
        ])  # fmt: skip
        seen = states(normalised(parts), kind)
        if kind == "pooled":
            merged.append(laid_out(seen[:, :, None], tiles)[:, 0])
        else:
            merged.append(torch.cat([seen[:, :1].mean(0), laid_out(seen[:, 1:], tiles)]))
    together = torch.stack(merged)
    if len(pictures) == 1:
        return torch.cat([whole * ratio, together])
    return whole * ratio + together * (1 - ratio)


def laid_out(parts: Tensor, tiles: int) -> Tensor:
    """Squares [n^2, side^2, F] side by side, averaged back to one [side^2, F]."""
    side = round(parts.shape[1] ** 0.5)
    squares = parts.unflatten(1, (side, side)).unflatten(0, (tiles, tiles))  # [n, n, side, side, F]
    large = squares.permute(4, 0, 2, 1, 3).reshape(-1, tiles * side, tiles * side)
    return F.avg_pool2d(large, tiles).flatten(1).T


def combine(features: Tensor, how: str, exact: bool = False) -> Tensor:
    """Several pictures' features [P, ...] as one, or as all of them (concat)."""
    if how == "concat":
        return features
    if how == "norm average":
        return (features / features.norm(dim=-1 if exact else 0, keepdim=True)).mean(0, keepdim=True)
    if how == "subtract":
        return features[:1] - features[1:].mean(0, keepdim=True)
    return {"add": features.sum, "average": features.mean, "max": features.amax, "min": features.amin}[how](
        0, keepdim=True
    )


@dataclass(frozen=True, eq=False)
class Said:
    """What an adapter reads: features [P, ...] and against them [1 or Q, ...], identities [P, 512] of FaceID.

    scale: of FaceID plus v2's resampled tokens; None: v1, which has these alone.
    """

    weights: dict[str, Tensor]
    features: Tensor | None
    against: Tensor | None
    identities: Tensor | None = None
    composition: Tensor | None = None
    scale: float | None = None
    exact: bool = False


_projections: dict[int, tuple[Any, Any]] = {}  # by the identity of an adapter's weights, which are held too


def project(said: Said, features: Tensor | None, identities: Tensor | None) -> Tensor:
    """Image tokens [rows, T, C], by diffusers' projections."""
    key = id(said.weights)
    if key not in _projections:
        _projections[key] = said.weights, oracles.diffusers_projection(said.weights)
    projection = _projections[key][1]
    with torch.inference_mode():
        if features is None or identities is None:
            return projection(oracles.as_one_input(said.weights, features, identities))
        projection.clip_embeds, projection.shortcut = features[:, None], said.scale is not None
        projection.shortcut_scale = 1.0 if said.scale is None else said.scale
        return projection(identities)


def tokens(said: Said, how: str = "concat", unfold: bool = False) -> dict[str, Any]:
    """The image tokens of an `Application`: cond, uncond and composition [R, T, C], pictures, unfold."""
    features, identities, composition = said.features, said.identities, said.composition
    count = len(features if features is not None else identities)
    against = None if said.against is None else said.against[[min(j, len(said.against) - 1) for j in range(count)]]
    nobody = None if identities is None else torch.zeros_like(identities)
    if count > 1 and not unfold:
        features, identities, composition = (
            None if x is None else combine(x, how, said.exact) for x in (features, identities, composition)
        )
        if how != "concat":
            against, nobody = (None if x is None else x[:1] for x in (against, nobody))
    found = {"cond": project(said, features, identities), "uncond": project(said, against, nobody)}
    if composition is not None:
        found["composition"] = project(said, composition, None)
    pictures = len(found["cond"])
    if unfold:
        return found | {"unfold": True}
    return {name: x.flatten(0, 1)[None] for name, x in found.items()} | {"pictures": pictures}
