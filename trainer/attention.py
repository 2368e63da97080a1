"""Decoupled cross-attention in diffusers' UNet: a processor that calls the core's function.

Beside it the paper's comparison, the "simple adapter": the image tokens appended to the text's, in one attention.

Shapes: B batch, N queries (latent positions), T tokens, C context width, D layer width.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ipadapter_core import ImageKV, Layer, attention, decoupled_attention, layer_table
from ipadapter_core.attention import Attend

Kind = Literal["decoupled", "appended"]


class ImagePrompts:
    """The K' and V' that the layers of one UNet read: filled before its forward, kept until backward is done.

    Gradient checkpointing runs the layers again during backward, so they are not passed as arguments.
    """

    def __init__(self) -> None:
        self.of_layer: dict[int, tuple[ImageKV, ...]] = {}

    def set(self, keys_values: dict[int, tuple[Tensor, Tensor]], scale: float = 1.0) -> None:
        """K', V' [B, T, D] by checkpoint index; `scale` is the paper's weight of the image prompt, a factor of V'."""
        self.of_layer = {index: (ImageKV(k, v if scale == 1 else v * scale),) for index, (k, v) in keys_values.items()}

    def clear(self) -> None:
        self.of_layer = {}


def appended_attention(q: Tensor, k: Tensor, v: Tensor, images: Iterable[ImageKV], attend: Attend) -> Tensor:
    """Attention(Q, [K, K'], [V, V']): one softmax over the text's tokens and the pictures' (section 4.4.2)."""
    images = tuple(images)
    keys, values = [k, *(image.k for image in images)], [v, *(image.v for image in images)]
    return attend(q, torch.cat(keys, 1), torch.cat(values, 1))


class ImageAttention:
    """diffusers' attention processor of one cross-attention layer with image prompts (IP-Adapter, eq. 5)."""

    def __init__(self, prompts: ImagePrompts, index: int, kind: Kind = "decoupled") -> None:
        self.prompts = prompts
        self.index = index
        self.kind = kind

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is not None and attention_mask is None, (
            "a cross-attention layer without a text mask"
        )
        assert hidden_states.ndim == 3 and attn.group_norm is None and attn.spatial_norm is None
        residual = hidden_states
        if attn.norm_cross:
            encoder_hidden_states = attn.norm_encoder_hidden_states(encoder_hidden_states)
        q, k, v = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        images = [
            ImageKV(image.k.to(q.dtype), image.v.to(q.dtype), image.mask)
            for image in self.prompts.of_layer.get(self.index, ())
        ]
        attend = partial(attention, num_heads=attn.heads)
        if self.kind == "appended":
            out = appended_attention(q, k, v, images, attend)
        else:
            out = decoupled_attention(q, k, v, images, attend, attend)
        for layer in attn.to_out:
            out = layer(out)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor


def install(unet: UNet2DConditionModel, kind: Kind = "decoupled") -> ImagePrompts:
    """Give every cross-attention layer the processor of image prompts; returns where its K' and V' are put.

    Raises ValueError for a base without cross-attention layers.
    """
    prompts = ImagePrompts()
    processors = dict(unet.attn_processors)
    for layer in unet_layers(unet):
        processors[f"{layer.diffusers}.processor"] = ImageAttention(prompts, layer.index, kind)
    unet.set_attn_processor(processors)
    return prompts


def unet_layers(unet: UNet2DConditionModel) -> list[Layer]:
    """The cross-attention layers of a UNet in checkpoint order. Raises ValueError when there are none."""
    blocks = unet.config.layers_per_block
    names = [name for name, _ in unet.named_modules()]
    table = layer_table(names, blocks if isinstance(blocks, int) else blocks[0])
    if not table:
        raise ValueError(
            "the base has no cross-attention layers, so an image prompt has nowhere to act: use SD1.5, SD2 or SDXL"
        )
    return table


@torch.no_grad()
def text_keys_values(unet: UNet2DConditionModel) -> dict[int, tuple[Tensor, Tensor]]:
    """The base's own weights of text K and V [D, C] by checkpoint index: what K' and V' start from (section 3.2.2)."""
    layers = {layer.index: unet.get_submodule(layer.diffusers) for layer in unet_layers(unet)}
    return {index: (layer.to_k.weight, layer.to_v.weight) for index, layer in layers.items()}
