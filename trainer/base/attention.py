"""Decoupled cross-attention in diffusers' UNet: a processor that calls the core's function.

Beside it the paper's comparison, the "simple adapter": the image tokens appended to the text's, in one attention; and
FaceID's LoRA, which changes the matrices of self-attention too.

Shapes: B batch, N queries (latent positions), T tokens, C context width, D layer width, R rank of a LoRA.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from ipadapter_core import ImageKV, Lora, Site, attention, decoupled_attention, joint_attention, unet_sites

Kind = Literal["decoupled", "appended"]


class Adaptation(NamedTuple):
    """What an adapter gives the layers for one forward: K', V' [B, T, D] by checkpoint index, and its LoRA."""

    keys_values: dict[int, tuple[Tensor, Tensor]]
    lora: Lora = {}


class ImagePrompts:
    """What the layers of one UNet read: filled before its forward, kept until backward is done.

    of_layer: K' and V' by checkpoint index. lora: (index, matrix) to (up [D, R], down [R, D or C]).
    Gradient checkpointing runs the layers again during backward, so they are not passed as arguments.
    """

    def __init__(self) -> None:
        self.of_layer: dict[int, tuple[ImageKV, ...]] = {}
        self.lora: Lora = {}

    def set(self, keys_values: dict[int, tuple[Tensor, Tensor]], scale: float = 1.0, lora: Lora | None = None) -> None:
        """K', V' [B, T, D] by checkpoint index; `scale` is the paper's weight of the image prompt, a factor of V'.

        The LoRA is a change of the base, so it has no scale and is there without a picture too.
        """
        self.of_layer = {index: (ImageKV(k, v if scale == 1 else v * scale),) for index, (k, v) in keys_values.items()}
        self.lora = lora or {}

    def clear(self) -> None:
        self.of_layer, self.lora = {}, {}


class ImageAttention:
    """diffusers' attention processor of one layer with image prompts (IP-Adapter, eq. 5) and LoRA.

    Without text states it is self-attention, which has a LoRA alone.
    """

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
        assert attention_mask is None, "a layer without a text mask"
        assert hidden_states.ndim == 3 and attn.group_norm is None and attn.spatial_norm is None
        residual = hidden_states
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.norm_cross and encoder_hidden_states is not None:
            read = attn.norm_encoder_hidden_states(encoder_hidden_states)
        q = self._changed("to_q", attn.to_q, hidden_states)
        k, v = self._changed("to_k", attn.to_k, read), self._changed("to_v", attn.to_v, read)
        images = [
            ImageKV(image.k.to(q.dtype), image.v.to(q.dtype), image.factor)
            for image in self.prompts.of_layer.get(self.index, ())
        ]
        attend = partial(attention, num_heads=attn.heads)
        if self.kind == "appended":
            out = joint_attention(q, k, v, images, attend)
        else:
            out = decoupled_attention(q, k, v, images, attend, attend)
        linear, dropout = attn.to_out
        out = dropout(self._changed("to_out", linear, out))
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor

    def _changed(self, name: str, linear: Any, x: Tensor) -> Tensor:
        """(W + up @ down) x, without making that matrix."""
        out = linear(x)
        if (self.index, name) not in self.prompts.lora:
            return out
        up, down = (half.to(out.dtype) for half in self.prompts.lora[self.index, name])
        return out + F.linear(F.linear(x, down), up)


def install(unet: UNet2DConditionModel, kind: Kind = "decoupled", has_lora: bool = False) -> ImagePrompts:
    """Give every cross-attention layer the processor of image prompts; returns where its K' and V' are put.

    has_lora: self-attention gets it as well. Raises ValueError for a base without cross-attention layers.
    """
    prompts = ImagePrompts()
    processors = dict(unet.attn_processors)
    for index, name in attention_names(unet).items():
        if has_lora or index % 2:
            processors[f"{name}.processor"] = ImageAttention(prompts, index, kind)
    unet.set_attn_processor(processors)
    return prompts


def attention_names(unet: UNet2DConditionModel) -> dict[int, str]:
    """diffusers' name of every attention layer by checkpoint index: self-attention (even), and cross-attention."""
    names = {}
    for layer in unet_layers(unet):
        names[layer.index - 1] = layer.diffusers.removesuffix("attn2") + "attn1"
        names[layer.index] = layer.diffusers
    return names


def unet_layers(unet: UNet2DConditionModel) -> list[Site]:
    """The cross-attention layers of a UNet in checkpoint order. Raises ValueError when there are none."""
    sites = unet_sites((name for name, _ in unet.named_modules()), unet.config.layers_per_block)
    if not sites:
        raise ValueError(
            "the base has no cross-attention layers, so an image prompt has nowhere to act: use SD1.5, SD2 or SDXL"
        )
    return sites


@torch.no_grad()
def text_keys_values(unet: UNet2DConditionModel) -> dict[int, tuple[Tensor, Tensor]]:
    """The base's own weights of text K and V [D, C] by checkpoint index: what K' and V' start from (section 3.2.2)."""
    layers = {layer.index: unet.get_submodule(layer.diffusers) for layer in unet_layers(unet)}
    return {index: (layer.to_k.weight, layer.to_v.weight) for index, layer in layers.items()}
