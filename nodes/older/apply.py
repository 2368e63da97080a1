"""The older nodes that apply an adapter: their inputs as references on a clone of MODEL.

All give (MODEL, faces that were found or None), the embeds and params nodes (MODEL,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...ipadapter_core import CONCATENATE, ONE_FOR_EACH, Given, module_numbers
from ...ipadapter_core.facts.bases import KOLORS, SDXL
from ..apply import apply_given, checked_host
from . import layers
from .asked import Asked, Read, read
from .features import checked, feature_of, no_picture
from .inputs import SIMPLE_TYPES
from .layers import COMPOSITION_PRECISE, STYLE_AND_COMPOSITION, STYLE_PRECISE, Share
from .sockets import Models, models_of
from .tiles import tiles_of

Applied = tuple[Any, Tensor | None]


def simple(model: Any, ipadapter: Any, weight_type: str | None = None, **inputs: Any) -> Applied:
    """The node with three kinds of use; it takes a loader's dict."""
    if not isinstance(ipadapter, Mapping) or "ipadapter" not in ipadapter:
        raise ValueError("IPAdapter takes what a unified loader gives: connect one, or use IPAdapter Advanced")
    kind = weight_type or next(iter(SIMPLE_TYPES))
    return apply(model, ipadapter, weight_type=SIMPLE_TYPES.get(kind, kind), **inputs)


def apply(model: Any, ipadapter: Any, unfold: bool = False, **inputs: Any) -> Applied:
    """Pictures, or the faces in them. unfold: each latent follows its own picture."""
    asked = Asked.of(inputs)
    if asked.image is None and asked.image_style is not None:
        return style_and_composition(model, ipadapter, unfold, **inputs)
    models = models_of(ipadapter, asked.clip_vision, asked.insightface)
    checked_host(model, models.adapter)
    found = read(models, asked, asked.picture())
    how = "concat" if unfold else asked.combine_embeds
    return _on(model, models, asked, found.combined(how, asked.exact), unfold), found.crops


def style_precise(model: Any, ipadapter: Any, unfold: bool = False, **inputs: Any) -> Applied:
    return apply(model, ipadapter, unfold, **{**inputs, "weight_type": STYLE_PRECISE})


def composition_precise(model: Any, ipadapter: Any, unfold: bool = False, **inputs: Any) -> Applied:
    return apply(model, ipadapter, unfold, **{**inputs, "weight_type": COMPOSITION_PRECISE})


def style_and_composition(model: Any, ipadapter: Any, unfold: bool = False, **inputs: Any) -> Applied:
    """Style of one picture and composition of another; the second keeps the first one's "no picture"."""
    asked = Asked.of(inputs)
    asked = replace(
        asked, weight=asked.weight_style, weight_type=STYLE_AND_COMPOSITION[asked.expand_style], image_style=None
    )
    models = models_of(ipadapter, asked.clip_vision, asked.insightface)
    _, sites = checked_host(model, models.adapter)
    if len(set(module_numbers(sites).values())) != SDXL.num_modules:
        raise ValueError("style and composition of two pictures are known for SDXL alone: load a model of SDXL")
    style = read(models, asked, Asked.of(inputs).picture("image_style"))
    composition = style if asked.image_composition is None else read(models, asked, asked.image_composition)
    if not unfold and style.inputs.rows > 1:
        style, composition = (one.combined(asked.combine_embeds, asked.exact) for one in (style, composition))
    found = layers.shares(replace(asked.wanted, composition=asked.weight_composition), sites)
    carriers = layers.carriers(sites)
    for is_carrier, inner in ((False, style), (True, Read(composition.inputs, style.unconditional))):
        part = {index: share for index, share in found.items() if (index in carriers) == is_carrier}
        model = _put(model, models, asked, inner, unfold, part, frozenset())
    return model, style.crops


def tiled(model: Any, ipadapter: Any, unfold: bool = False, **inputs: Any) -> tuple[Any, Tensor, Tensor]:
    """The parts of a picture, each with a mask of its place: (MODEL, the tiles, their masks)."""
    asked = Asked.of(inputs)
    models = models_of(ipadapter, asked.clip_vision, asked.insightface)
    feature_of(models.adapter.spec, models.adapter.name)
    if models.adapter.spec.identity is not None:
        raise ValueError(f"{models.adapter.name} reads faces, and a part of a picture has none: use IPAdapter FaceID")
    tiles, masks = tiles_of(asked.picture(), asked.attn_mask, asked.sharpening)
    for tile, mask in zip(tiles, masks):
        model, _ = apply(model, ipadapter, unfold, **{**inputs, "image": tile, "attn_mask": mask, "sharpening": None})
    return model, torch.cat(tiles), torch.cat(masks)


def embeds(model: Any, ipadapter: Any, unfold: bool = False, **inputs: Any) -> tuple[Any]:
    """Features of pictures that the encoder node made."""
    asked = Asked.of(inputs)
    models = models_of(ipadapter, asked.clip_vision, asked.insightface)
    adapter = models.adapter
    if adapter.spec.identity is not None:
        raise ValueError(f"{adapter.name} reads faces, which embeds do not hold: use IPAdapter FaceID")
    feature_of(adapter.spec, adapter.name)
    given = Given(checked(adapter.spec, adapter.name, asked.picture("pos_embed").float()))
    if asked.neg_embed is not None:
        nothing = Given(asked.neg_embed.float())
    else:
        nothing = no_picture(adapter.spec, given, _encoder_for_nothing(models), asked.exact)
    return (_on(model, models, asked, Read(given, nothing), unfold),)


def from_params(model: Any, ipadapter: Any, ipadapter_params: Mapping[str, list[Any]], **inputs: Any) -> tuple[Any]:
    """One adapter for each entry of the parameters, in their order."""
    names = ("image", "attn_mask", "weight", "weight_type", "start_at", "end_at")
    for entry in zip(*(ipadapter_params[name] for name in names)):
        model, _ = apply(model, ipadapter, **{**inputs, **dict(zip(names, entry))})
    return (model,)


def _encoder_for_nothing(models: Models) -> Any:
    """The encoder, where "no picture" is a picture to it."""
    return models.encoder() if models.adapter.spec.feature == "penultimate" else None


def _on(model: Any, models: Models, asked: Asked, found: Read, unfold: bool) -> Any:
    """A clone of MODEL that follows what was read, by the weight type."""
    _, sites = checked_host(model, models.adapter)
    shares = layers.shares(asked.wanted, sites)
    return _put(model, models, asked, found, unfold, shares, layers.swapped(asked.wanted, sites))


def _put(
    model: Any, models: Models, asked: Asked, found: Read, unfold: bool, shares: dict[int, Share],
    swapped: frozenset[int],
) -> Any:  # fmt: skip
    """A clone of MODEL with one reference; with a weight for each frame two, where layers have another weight."""
    weight, frames = _weights(asked.weight, unfold)
    spec = models.adapter.spec
    scale = 2 * weight if asked.weight_faceidv2 is None else asked.weight_faceidv2
    parts: list[tuple[dict[int, float], tuple[float, ...]]]
    if frames:
        parts = [
            ({index: share.of_weight for index, share in shares.items()}, frames),
            ({index: share.fixed for index, share in shares.items()}, ()),
        ]
    else:
        parts = [({index: weight * share.of_weight + share.fixed for index, share in shares.items()}, ())]
    for of_layers, of_frames in parts:
        if any(of_layers.values()):
            model = apply_given(
                model, models.adapter, found.inputs, found.unconditional, asked.influence(of_layers, of_frames),
                swapped=swapped, combine=ONE_FOR_EACH if unfold else CONCATENATE, shortcut_scale=scale,
                token_scale=asked.weight_kolors if spec.base == KOLORS.name and spec.identity else 1.0,
            )  # fmt: skip
    return model


def _weights(weight: Any, unfold: bool) -> tuple[float, tuple[float, ...]]:
    """A weight, and those of frames where each latent has its own."""
    if not isinstance(weight, list | tuple | Tensor):
        return float(weight), ()
    numbers = tuple(float(number) for number in weight)
    if not numbers:
        raise ValueError("the weight is an empty list: give a number, or one for each frame")
    return numbers[0], numbers if unfold and len(set(numbers)) > 1 else ()
