"""Predictions of ComfyUI's UNet with every image attention written out: nothing of the product's own is called.

Shapes: B batch, N positions, T tokens, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# Of a layer by its index: q [B, N, D], what the text gave [B, N, D], heads and grid to the sum of both.
Add = Callable[[int, Tensor, Tensor, int, tuple[int, int]], Tensor]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k / sqrt(d)) v by heads, [B, N, D], in fp64."""
    q, k, v = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def rescaled(out: Tensor, text: Tensor, amount: float) -> Tensor:
    """Each position of `out` moved to the norm that `text` has there."""
    wanted, found = (x.square().sum(-1, keepdim=True).sqrt() for x in (text, out))
    return out + amount * (out * wanted / found - out)


def predicted(model: Any, call: Mapping[str, Any], blocks: Mapping[int, tuple[Any, ...]], add: Add) -> Tensor:
    """The prediction of a recorded call; blocks: ComfyUI's key of each layer by its index."""

    def layer(index: int) -> Any:
        def replacement(q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any]) -> Tensor:
            text = softmax_attention(q, k, v, extra["n_heads"])
            height, width = extra["activations_shape"][-2:]
            return add(index, q, text, extra["n_heads"], (height, width)).to(q)

        return replacement

    replaced = {key: layer(index) for index, key in blocks.items()}
    with torch.inference_mode():
        return model.model.diffusion_model(
            call["x"], call["t"], context=call["context"], transformer_options={"patches_replace": {"attn2": replaced}}
        )
