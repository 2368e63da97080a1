"""Decoupled cross-attention: the method itself.

Shapes: B batch, N queries (the positions of the picture), T tokens, H heads, d width of a head, D = H · d layer width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
SMALLEST = 1e-30  # of a norm that something is divided by


class ImageKV(NamedTuple):
    """K' and V' of one layer for one image prompt, its weight already folded into V'.

    k, v: as the attention that is called takes them, [B, T, D] or by heads [B, H, T, d]. factor: [B or 1, N or 1, 1],
    what the attended is multiplied with: a mask, a step's weight, a latent's, or all in one; None: nothing is
    multiplied. rescale: [1, 1, 1], how far (0 to 1) the sum is moved to the norm of the text's attention; None: not.
    """

    k: Tensor
    v: Tensor
    factor: Tensor | None = None
    rescale: Tensor | None = None


def decoupled_attention(
    q: Tensor, k: Tensor, v: Tensor, images: Iterable[ImageKV], text: Attend, image: Attend
) -> Tensor:
    """Attention(Q, K, V) + the sum over image prompts of factor * Attention(Q, K', V') (IP-Adapter, eq. 5 and 6).

    q: [B, N, D]; k, v: [B, T, D] of the text. `text` and `image` are the attentions to call, the host's own.
    The paper's scale is a factor of V', because attention is linear in V.
    """
    return add_image_attention(text(q, k, v), q, images, image)


def add_image_attention(text: Tensor, q: Tensor, images: Iterable[ImageKV], attend: Attend) -> Tensor:
    """The second term of eq. 5, added to what the base attended (`text` [B, N, D]), for hosts that have that already.

    An adapter whose keys include the base's own, as SD3.5's, gives them in its K' and V'.
    """
    out = text
    for k, v, factor, rescale in images:
        attended = attend(q, k, v)
        out = out + (attended if factor is None else attended * factor)
        if rescale is not None:
            out = rescaled(out, text, rescale)
    return out


def rescaled(out: Tensor, text: Tensor, amount: Tensor) -> Tensor:
    """out + amount * (out * |text| / |out| - out): each position of `out` moved to the norm of `text`, both [B, N, D].

    amount: [1, 1, 1], 0 (nothing) to 1. Computed in fp32; where |out| is 0 it stays 0.
    """
    wanted = torch.linalg.vector_norm(text, dim=-1, keepdim=True, dtype=torch.float32)
    found = torch.linalg.vector_norm(out, dim=-1, keepdim=True, dtype=torch.float32)
    return (out * (1 + amount * (wanted / found.clamp(min=SMALLEST) - 1))).to(out.dtype)


def joint_attention(q: Tensor, k: Tensor, v: Tensor, images: Iterable[ImageKV], attend: Attend) -> Tensor:
    """Attention(Q, [K, K'], [V, V']): one softmax over the base's tokens and the pictures' (section 4.4.2).

    q: [B, N, D]; k, v: [B, T, D]. One softmax has no share of the picture's own, so a factor and a rescale have no
    meaning here.
    """
    images = tuple(images)
    assert all(image.factor is None for image in images), "one softmax has nothing to multiply"
    assert all(image.rescale is None for image in images), "one softmax has nothing to rescale"
    keys, values = [k, *(image.k for image in images)], [v, *(image.v for image in images)]
    return attend(q, torch.cat(keys, 1), torch.cat(values, 1))


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[..., T, D] by heads, [..., H, T, d], without a copy."""
    return x.view(*x.shape[:-1], num_heads, x.shape[-1] // num_heads).transpose(-3, -2)


def attention_by_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-head attention with torch's kernel: q [B, N, D], k and v by heads [B, H, T, d], to [B, N, D]."""
    batch, positions, width = q.shape
    heads = k.shape[1]
    by_heads = q.view(batch, positions, heads, width // heads).transpose(1, 2)
    return F.scaled_dot_product_attention(by_heads, k, v).transpose(1, 2).reshape(batch, positions, width)


def attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """Multi-head attention with torch's kernel: q [B, N, D], k and v [B, T, D], to [B, N, D]."""
    return attention_by_heads(q, split_heads(k, num_heads), split_heads(v, num_heads))


def image_share(image: Tensor, text: Tensor) -> Tensor:
    """|image| / (|text| + |image|): how much of the two terms of eq. 5, [B, N, D] each, is the picture's, by position.

    image: the second term, weight and mask with it. [B, N] of 0..1 in fp32; 0 where both are 0.
    """
    of_image, of_text = (torch.linalg.vector_norm(part, dim=-1, dtype=torch.float32) for part in (image, text))
    return of_image / (of_text + of_image).clamp(min=torch.finfo(torch.float32).tiny)


class ImageKVLayer(nn.Module):
    """K' and V' of one cross-attention layer: image tokens [B, T, C] to two [B, T, D] (IP-Adapter, eq. 4)."""

    def __init__(self, context_dim: int, width: int, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.to_k_ip = operations.Linear(context_dim, width, bias=False, **factory)
        self.to_v_ip = operations.Linear(context_dim, width, bias=False, **factory)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_k_ip(tokens), self.to_v_ip(tokens)
