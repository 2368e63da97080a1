"""From features of the image encoder, and identities of faces, to image tokens.

Shapes: B batch, S sequence of the encoder's hidden states, F their width, I identity, T image tokens, C their width,
W resampler width. Parameter names are those of the published files.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

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
    """The projection that `spec` names; `operations` gives Linear and LayerNorm, `factory` dtype and device."""
    kinds: dict[type, type[nn.Module]] = {
        LinearProjection: ImageProjection,
        ResamplerProjection: Resampler,
        MLPProjection: FeatureMLP,
        IdentityProjection: IdentityMLP,
        IdentityResamplerProjection: IdentityResampler,
    }
    return kinds[type(spec.projection)](spec, operations, **factory)


class ImageProjection(nn.Module):
    """Pooled image embedding [B, F] to image tokens [B, T, C]: linear, then LayerNorm (IP-Adapter, section 3.2.1)."""

    def __init__(self, spec: AdapterSpec, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.num_tokens = spec.num_tokens
        self.proj = operations.Linear(spec.feature_dim, spec.num_tokens * spec.projected_dim, **factory)
        self.norm = operations.LayerNorm(spec.projected_dim, **factory)

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(rearrange(self.proj(features), "b (t c) -> b t c", t=self.num_tokens))


class FeatureMLP(nn.Module):
    """Hidden states [B, S, F] to as many image tokens [B, S, C] (full-face)."""

    def __init__(self, spec: AdapterSpec, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        shape = cast(MLPProjection, spec.projection)
        self.proj = nn.Sequential(
            operations.Linear(spec.feature_dim, shape.hidden, **factory),
            nn.GELU(),
            operations.Linear(shape.hidden, spec.projected_dim, **factory),
            operations.LayerNorm(spec.projected_dim, **factory),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.proj(features)


class IdentityTokens(nn.Module):
    """Identities [B, I] to tokens [B, T, C]."""

    def __init__(self, spec: AdapterSpec, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        shape = cast(IdentityProjection | IdentityResamplerProjection, spec.projection)
        self.num_tokens = spec.num_tokens
        self.proj = nn.Sequential(
            operations.Linear(IDENTITY_DIM, shape.hidden, **factory),
            nn.GELU(),
            operations.Linear(shape.hidden, spec.num_tokens * spec.projected_dim, **factory),
        )
        self.norm = operations.LayerNorm(spec.projected_dim, **factory)

    def tokens(self, identities: Tensor) -> Tensor:
        return self.norm(rearrange(self.proj(identities), "b (t c) -> b t c", t=self.num_tokens))


class IdentityMLP(IdentityTokens):
    """Identities [B, I] to image tokens [B, T, C] (FaceID)."""

    def forward(self, identities: Tensor) -> Tensor:
        return self.tokens(identities)


class Perceiver(nn.Module):
    """Queries [B, T, W] read hidden states [B, S, F] in a few layers and become image tokens [B, T, C].

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
            nn.ModuleList(
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
            attention, ff = cast(nn.ModuleList, layer)
            queries = queries + attention(states, queries)
            queries = queries + ff(queries)
        return self.norm_out(self.proj_out(queries))


class Resampler(Perceiver):
    """Hidden states [B, S, F] to image tokens [B, T, C] by learned queries (section 4.4.1 of the paper).

    FaceID portrait unnorm reads an identity as a sequence of one state.
    """

    def __init__(self, spec: AdapterSpec, operations: Any = nn, **factory: Any) -> None:
        shape = cast(ResamplerProjection, spec.projection)
        latents = torch.empty(1, spec.num_tokens, shape.width, **factory)
        nn.init.normal_(latents, std=shape.width**-0.5)
        read = IDENTITY_DIM if spec.feature is None else spec.feature_dim
        super().__init__(shape, read, spec.projected_dim, operations, **factory)
        self.latents = nn.Parameter(latents)

    def forward(self, features: Tensor) -> Tensor:
        return self.read(self.latents.to(features).expand(len(features), -1, -1), features)


class IdentityResampler(IdentityTokens):
    """Identities [B, I] and the hidden states [B, S, F] of the faces' pictures to image tokens [B, T, C] (FaceID plus).

    The identity's tokens are the queries. With the shortcut (v2) they are also added to the result.
    """

    def __init__(self, spec: AdapterSpec, operations: Any = nn, **factory: Any) -> None:
        super().__init__(spec, operations, **factory)
        shape = cast(IdentityResamplerProjection, spec.projection).resampler
        self.has_shortcut = spec.shortcut
        self.perceiver_resampler = Perceiver(shape, spec.feature_dim, spec.projected_dim, operations, **factory)

    def forward(self, features: Tensor, identities: Tensor, shortcut_scale: float = 1.0) -> Tensor:
        tokens = self.tokens(identities)
        resampled = self.perceiver_resampler.read(tokens, features)
        return tokens + shortcut_scale * resampled if self.has_shortcut else resampled


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
