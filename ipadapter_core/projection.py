"""From features of the image encoder to image tokens.

Shapes: B batch, S sequence of the encoder's hidden states, F their width, T image tokens, C context width, W resampler
width. Parameter names are those of the published files.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .spec import AdapterSpec, LinearProjection


def build_projection(spec: AdapterSpec, operations: Any = nn, **factory: Any) -> nn.Module:
    """The projection that `spec` names; `operations` gives Linear and LayerNorm, `factory` dtype and device."""
    if isinstance(spec.projection, LinearProjection):
        return ImageProjection(spec, operations, **factory)
    return Resampler(spec, operations, **factory)


class ImageProjection(nn.Module):
    """Pooled image embedding [B, F] to image tokens [B, T, C]: linear, then LayerNorm (IP-Adapter, section 3.2.1)."""

    def __init__(self, spec: AdapterSpec, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.num_tokens = spec.num_tokens
        self.proj = operations.Linear(spec.feature_dim, spec.num_tokens * spec.context_dim, **factory)
        self.norm = operations.LayerNorm(spec.context_dim, **factory)

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(rearrange(self.proj(features), "b (t c) -> b t c", t=self.num_tokens))


class Resampler(nn.Module):
    """Hidden states [B, S, F] to image tokens [B, T, C]: learned queries read them in a few perceiver layers.

    Section 4.4.1 of the paper; the layers are those of Flamingo's perceiver resampler (arXiv 2204.14198).
    """

    def __init__(self, spec: AdapterSpec, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        shape = spec.projection
        assert not isinstance(shape, LinearProjection)
        self.latents = nn.Parameter(torch.empty(1, spec.num_tokens, shape.width, **factory))
        nn.init.normal_(self.latents, std=shape.width**-0.5)
        self.proj_in = operations.Linear(spec.feature_dim, shape.width, **factory)
        self.proj_out = operations.Linear(shape.width, spec.context_dim, **factory)
        self.norm_out = operations.LayerNorm(spec.context_dim, **factory)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(shape.width, shape.num_heads, operations, **factory),
                    feed_forward(shape.width, shape.ff_width, operations, **factory),
                ]
            )
            for _ in range(shape.depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        states = self.proj_in(features)
        latents = self.latents.to(states).expand(len(states), -1, -1)
        for layer in self.layers:
            attention, ff = cast(nn.ModuleList, layer)
            latents = latents + attention(states, latents)
            latents = latents + ff(latents)
        return self.norm_out(self.proj_out(latents))


class PerceiverAttention(nn.Module):
    """Latents [B, T, W] attend to the states [B, S, W] and to themselves."""

    def __init__(self, width: int, num_heads: int, operations: Any = nn, head_width: int = 64, **factory: Any) -> None:
        super().__init__()
        inner = num_heads * head_width
        self.num_heads = num_heads
        self.norm1 = operations.LayerNorm(width, **factory)
        self.norm2 = operations.LayerNorm(width, **factory)
        self.to_q = operations.Linear(width, inner, bias=False, **factory)
        self.to_kv = operations.Linear(width, 2 * inner, bias=False, **factory)
        self.to_out = operations.Linear(inner, width, bias=False, **factory)

    def forward(self, states: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm2(latents)
        key_value = self.to_kv(torch.cat([self.norm1(states), latents], dim=1))
        q = rearrange(self.to_q(latents), "b t (h d) -> b h t d", h=self.num_heads)
        k, v = rearrange(key_value, "b s (two h d) -> two b h s d", two=2, h=self.num_heads)
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h t d -> b t (h d)"))


def feed_forward(width: int, inner: int, operations: Any = nn, **factory: Any) -> nn.Sequential:
    """LayerNorm, linear, GELU, linear: [B, T, W] to [B, T, W]."""
    return nn.Sequential(
        operations.LayerNorm(width, **factory),
        operations.Linear(width, inner, bias=False, **factory),
        nn.GELU(),
        operations.Linear(inner, width, bias=False, **factory),
    )
