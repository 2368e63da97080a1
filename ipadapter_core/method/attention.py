"""Decoupled cross-attention: the method itself.

Shapes: B batch, N queries (the positions of the picture), T tokens, H heads, D layer width (all heads together).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class ImageKV(NamedTuple):
    """K' and V' of one layer for one image prompt, the weight already folded into V'.

    k, v: [B, T, D]. mask: [B or 1, N, 1] or None, where the image prompt acts.
    """

    k: Tensor
    v: Tensor
    mask: Tensor | None = None


def decoupled_attention(
    q: Tensor, k: Tensor, v: Tensor, images: Iterable[ImageKV], text: Attend, image: Attend
) -> Tensor:
    """Attention(Q, K, V) + the sum over image prompts of mask * Attention(Q, K', V') (IP-Adapter, eq. 5 and 6).

    q: [B, N, D]; k, v: [B, T, D] of the text. `text` and `image` are the attentions to call, the host's own.
    The paper's scale is a factor of V', because attention is linear in V.
    """
    out = text(q, k, v)
    for prompt in images:
        attended = image(q, prompt.k, prompt.v)
        out = out + (attended if prompt.mask is None else attended * prompt.mask)
    return out


def attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """Multi-head attention with torch's kernel: q [B, N, D], k and v [B, T, D], to [B, N, D]."""
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


class ImageKVLayer(nn.Module):
    """K' and V' of one cross-attention layer: image tokens [B, T, C] to two [B, T, D] (IP-Adapter, eq. 4)."""

    def __init__(self, context_dim: int, width: int, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.to_k_ip = operations.Linear(context_dim, width, bias=False, **factory)
        self.to_v_ip = operations.Linear(context_dim, width, bias=False, **factory)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_k_ip(tokens), self.to_v_ip(tokens)
