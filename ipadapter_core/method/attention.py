"""Decoupled cross-attention: the method itself.

Shapes: B batch, N queries (the positions of the picture), T tokens, H heads, D layer width (all heads together).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class ImageKV(NamedTuple):
    """K' and V' of one layer for one image prompt, its weight already folded into V'.

    k, v: [B, T, D]. factor: [B or 1, N or 1, 1], what the attended is multiplied with: a mask, a step's weight, or both
    in one; None: nothing is multiplied.
    """

    k: Tensor
    v: Tensor
    factor: Tensor | None = None


def decoupled_attention(
    q: Tensor, k: Tensor, v: Tensor, images: Iterable[ImageKV], text: Attend, image: Attend
) -> Tensor:
    """Attention(Q, K, V) + the sum over image prompts of factor * Attention(Q, K', V') (IP-Adapter, eq. 5 and 6).

    q: [B, N, D]; k, v: [B, T, D] of the text. `text` and `image` are the attentions to call, the host's own.
    The paper's scale is a factor of V', because attention is linear in V.
    """
    return add_image_attention(text(q, k, v), q, images, image)


def add_image_attention(out: Tensor, q: Tensor, images: Iterable[ImageKV], attend: Attend) -> Tensor:
    """The second term of eq. 5, added to what the base attended (`out` [B, N, D]), for hosts that have that already.

    An adapter whose keys include the base's own, as SD3.5's, gives them in its K' and V'.
    """
    for prompt in images:
        attended = attend(q, prompt.k, prompt.v)
        out = out + (attended if prompt.factor is None else attended * prompt.factor)
    return out


def joint_attention(q: Tensor, k: Tensor, v: Tensor, images: Iterable[ImageKV], attend: Attend) -> Tensor:
    """Attention(Q, [K, K'], [V, V']): one softmax over the base's tokens and the pictures' (section 4.4.2).

    q: [B, N, D]; k, v: [B, T, D]. One softmax has no share of the picture's own, so a factor has no meaning here.
    """
    images = tuple(images)
    assert all(image.factor is None for image in images), "one softmax has nothing to multiply"
    keys, values = [k, *(image.k for image in images)], [v, *(image.v for image in images)]
    return attend(q, torch.cat(keys, 1), torch.cat(values, 1))


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
