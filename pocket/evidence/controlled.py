"""K' and V' of an order's image prompts with the nodes' controls, for diffusers: the core's functions, step by step.

Shapes: B pictures of a part of an order, P pictures of a prompt, T image tokens, C context width, D width of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ipadapter_core import CONCATENATE, Feature, Given, ImageKV, IPAdapter, Site, layer_weights, merged, nothing, scaled
from trainer.base.frozen import Frozen
from trainer.base.sites import unet_layers

from .orders import Order, World
from .prompt import Prompt, part_masks

LAST = 999  # the noisiest timestep: progress 0, as in ComfyUI's percent_to_sigma
Steps = Callable[[Tensor], dict[int, tuple[ImageKV, ...]]]


class HasParts(Protocol):
    """What is needed of a studio. features: of all references of a world."""

    world: Callable[[int], World]
    adapter: Callable[[str], IPAdapter]
    features: Callable[[int, Feature], Tensor]
    frozen: Frozen


def steps(studio: HasParts, order: Order, rows: Tensor, unet: UNet2DConditionModel) -> Steps:
    """What each layer gets at a timestep, by checkpoint index: [2B, T, D], "no picture" in the first half of them."""
    adapter = studio.adapter(order.adapter)
    found = [keys_values(studio, adapter, prompt, order, rows, unet) for prompt in order.prompts]
    sizes = {site.index: side for site, side in sides(unet).items()}
    masks = {side: part_masks(order.prompts, side) for side in set(sizes.values())}

    def of_step(timestep: Tensor) -> dict[int, tuple[ImageKV, ...]]:
        layers: dict[int, tuple[ImageKV, ...]] = {}
        for place, prompt in enumerate(order.prompts):
            factor = prompt.curve.at(1 - float(timestep) / LAST)
            if factor == 0:
                continue
            for index, (k, v) in found[place].items():
                mask = masks[sizes[index]][place]
                where = factor * (torch.ones(1, 1, 1) if mask is None else mask.reshape(1, -1, 1))
                rescale = torch.full((1, 1, 1), prompt.rescale) if prompt.rescale else None
                layers[index] = (*layers.get(index, ()), ImageKV(k, v, where, rescale))
        return layers

    return of_step


def keys_values(
    studio: HasParts, adapter: IPAdapter, prompt: Prompt, order: Order, rows: Tensor, unet: UNet2DConditionModel
) -> dict[int, tuple[Tensor, Tensor]]:
    """K' and V' [2B, T, D] of a prompt by checkpoint index, its weight with them."""
    features = studio.features(order.world, adapter.spec.feature)
    world = studio.world(order.world)
    pictures = torch.stack([features[world.rows_of(source, rows)] for source in prompt.sources])  # P, B, ...
    given = merged(Given(pictures), prompt.combine, prompt.picture_weights).features
    assert given is not None
    first = Given(given[0])
    empty = nothing(adapter.spec, first, studio.frozen.zero_states).expanded(first.rows)
    if prompt.negative:
        empty = Given(features[world.rows_of(prompt.negative, rows)])
    # No picture has as many tokens as the pictures, so that it is the same attention.
    tokens = torch.cat([adapter.image_tokens(empty.joined(Given(picture))) for picture in given], 1)
    weights = picture_factors(prompt, tokens)
    shares = layer_weights(prompt.layers, unet_layers(unet))
    return {
        index: scaled(k, v, weights * (prompt.weight * shares[index]), prompt.scaling, len(given))
        for index, (k, v) in adapter.keys_values(tokens, shares).items()
    }


def picture_factors(prompt: Prompt, tokens: Tensor) -> Tensor:
    """The factor of each token, [1, T, 1]; 1 where the pictures are made one, which has the weights in it."""
    if prompt.combine != CONCATENATE or not prompt.picture_weights:
        return torch.ones(1, 1, 1)
    factors = torch.tensor(prompt.picture_weights)
    return factors.repeat_interleave(tokens.shape[1] // len(factors)).view(1, -1, 1)


def sides(unet: UNet2DConditionModel) -> dict[Site, int]:
    """How many positions each layer has along a side."""
    size, last = unet.config.sample_size, len(unet.config.block_out_channels) - 1
    halvings = {"down": lambda level: level, "up": lambda level: last - level, "mid": lambda _: last}
    return {site: size >> halvings[site.place[0]](site.place[1]) for site in unet_layers(unet)}
