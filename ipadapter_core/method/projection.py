"""From features of the image encoder, and identities of faces, to image tokens.

Shapes: P pictures or faces, S sequence of the encoder's hidden states, F their width, I identity, T image tokens, C
their width, W resampler width. Every projection has one `forward(given, shortcut_scale)`; the scale is FaceID plus
v2's, and nothing to the others. Parameter names are those of the published files.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .given import Given
from .spec import (
    IDENTITY_DIM,
    AdapterSpec,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    ResamplerProjection,
)


def build_projection(spec: AdapterSpec, operations: Any = nn, **factory: Any) -> nn.Module:
    """The projection that `spec` names: a module whose `forward(given, shortcut_scale=1.0)` gives image tokens.

    operations: gives Linear and LayerNorm. factory: dtype and device.
    """
    shape = spec.projection
    if isinstance(shape, LinearProjection):
        return LinearTokens(spec, operations, **factory)
    if isinstance(shape, MLPProjection):
        return MLPTokens(spec, shape, operations, **factory)
    if isinstance(shape, ResamplerProjection):
        return Resampler(spec, shape, operations, **factory)
    if isinstance(shape, IdentityProjection):
        return IdentityTokens(spec, shape.hidden, operations, **factory)
    return IdentityResampler(spec, shape, operations, **factory)


class LinearTokens(nn.Module):
    """Pooled image embedding [P, F] to image tokens [P, T, C]: linear, then LayerNorm (IP-Adapter, section 3.2.1)."""

    def __init__(self, spec: AdapterSpec, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.num_tokens = spec.num_tokens
        self.proj = operations.Linear(spec.feature_dim, spec.num_tokens * spec.projected_dim, **factory)
        self.norm = operations.LayerNorm(spec.projected_dim, **factory)

    def forward(self, given: Given, shortcut_scale: float = 1.0) -> Tensor:
        return self.norm(rearrange(self.proj(given.features), "p (t c) -> p t c", t=self.num_tokens))


class MLPTokens(nn.Module):
    """Hidden states [P, S, F] to as many image tokens [P, S, C] (full-face)."""

    def __init__(self, spec: AdapterSpec, shape: MLPProjection, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            operations.Linear(spec.feature_dim, shape.hidden, **factory),
            nn.GELU(),
            operations.Linear(shape.hidden, spec.projected_dim, **factory),
            operations.LayerNorm(spec.projected_dim, **factory),
        )

    def forward(self, given: Given, shortcut_scale: float = 1.0) -> Tensor:
        return self.proj(given.features)


class IdentityTokens(nn.Module):
    """Identities [P, I] to image tokens [P, T, C] (FaceID)."""

    def __init__(self, spec: AdapterSpec, hidden: int, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.num_tokens = spec.num_tokens
        self.proj = nn.Sequential(
            operations.Linear(IDENTITY_DIM, hidden, **factory),
            nn.GELU(),
            operations.Linear(hidden, spec.num_tokens * spec.projected_dim, **factory),
        )
        self.norm = operations.LayerNorm(spec.projected_dim, **factory)

    def forward(self, given: Given, shortcut_scale: float = 1.0) -> Tensor:
        return self.norm(rearrange(self.proj(given.identities), "p (t c) -> p t c", t=self.num_tokens))


class Perceiver(nn.Module):
    """Queries [P, T, W] read hidden states [P, S, F] in a few layers and become image tokens [P, T, C].

    The layers are those of Flamingo's perceiver resampler (arXiv 2204.14198).
    """

    def __init__(
        self, shape: ResamplerProjection, feature_dim: int, token_dim: int, operations: Any = nn, **factory: Any
    ) -> None:
        super().__init__()
        self.proj_in = operations.Linear(feature_dim, shape.width, **factory)
        self.proj_out = operations.Linear(shape.width, token_dim, **factory)
        self.norm_out = operations.LayerNorm(token_dim, **factory)
        self.layers = nn.ModuleList(
            PerceiverLayer(
                [
                    PerceiverAttention(shape.width, shape.num_heads, operations, **factory),
                    feed_forward(shape.width, shape.ff_width, operations, **factory),
                ]
            )
            for _ in range(shape.depth)
        )

    def read(self, queries: Tensor, features: Tensor) -> Tensor:
        states = self.proj_in(features)
        for layer in self.layers:
            queries = layer(states, queries)
        return self.norm_out(self.proj_out(queries))


class PerceiverLayer(nn.ModuleList):
    """Attention and feed-forward, each added to the queries: states [P, S, W], queries [P, T, W] to [P, T, W]."""

    def forward(self, states: Tensor, queries: Tensor) -> Tensor:
        attention, feed_forward = self
        queries = queries + attention(states, queries)
        return queries + feed_forward(queries)


class Resampler(Perceiver):
    """Hidden states [P, S, F] to image tokens [P, T, C] by learned queries (section 4.4.1 of the paper).

    Without an image encoder (FaceID portrait unnorm) it reads the identity, as a sequence of one state.
    """

    def __init__(self, spec: AdapterSpec, shape: ResamplerProjection, operations: Any = nn, **factory: Any) -> None:
        latents = torch.empty(1, spec.num_tokens, shape.width, **factory)
        nn.init.normal_(latents, std=shape.width**-0.5)
        read = IDENTITY_DIM if spec.feature is None else spec.feature_dim
        super().__init__(shape, read, spec.projected_dim, operations, **factory)
        self.latents = nn.Parameter(latents)

    def forward(self, given: Given, shortcut_scale: float = 1.0) -> Tensor:
        states = given.features
        if states is None:
            assert given.identities is not None
            states = given.identities[:, None]
        return self.read(self.latents.to(states).expand(len(states), -1, -1), states)


class IdentityResampler(IdentityTokens):
    """Identities [P, I] and the hidden states [P, S, F] of the faces' pictures to image tokens [P, T, C] (FaceID plus).

    The identity's tokens are the queries. With the shortcut (v2) they are also added to the result, which then counts
    `shortcut_scale` times.
    """

    def __init__(
        self, spec: AdapterSpec, shape: IdentityResamplerProjection, operations: Any = nn, **factory: Any
    ) -> None:
        super().__init__(spec, shape.hidden, operations, **factory)
        self.has_shortcut = spec.shortcut
        self.perceiver_resampler = Perceiver(
            shape.resampler, spec.feature_dim, spec.projected_dim, operations, **factory
        )

    def forward(self, given: Given, shortcut_scale: float = 1.0) -> Tensor:
        assert given.features is not None
        tokens = super().forward(given)
        resampled = self.perceiver_resampler.read(tokens, given.features)
        return tokens + shortcut_scale * resampled if self.has_shortcut else resampled


class PerceiverAttention(nn.Module):
    """Latents [P, T, W] attend to the states [P, S, W] and to themselves."""

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
        q = rearrange(self.to_q(latents), "p t (h d) -> p h t d", h=self.num_heads)
        k, v = rearrange(key_value, "p s (two h d) -> two p h s d", two=2, h=self.num_heads)
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v), "p h t d -> p t (h d)"))


def feed_forward(width: int, inner: int, operations: Any = nn, **factory: Any) -> nn.Sequential:
    """LayerNorm, linear, GELU, linear: [P, T, W] to [P, T, W]."""
    return nn.Sequential(
        operations.LayerNorm(width, **factory),
        operations.Linear(width, inner, bias=False, **factory),
        nn.GELU(),
        operations.Linear(inner, width, bias=False, **factory),
    )
