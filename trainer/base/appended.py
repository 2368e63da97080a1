"""The paper's comparison, the "simple adapter": the image tokens appended to the text's, in one attention.

Shapes: B batch, N queries (latent positions), T tokens, D layer width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ipadapter_core import ImageKV
from ipadapter_core.method.attention import Attend


def appended_attention(q: Tensor, k: Tensor, v: Tensor, images: Iterable[ImageKV], attend: Attend) -> Tensor:
    """Attention(Q, [K, K'], [V, V']): one softmax over the text's tokens and the pictures' (section 4.4.2).

    q: [B, N, D]. k, v: of the text, [B, T, D]. Gives [B, N, D].
    """
    images = tuple(images)
    keys, values = [k, *(image.k for image in images)], [v, *(image.v for image in images)]
    return attend(q, torch.cat(keys, 1), torch.cat(values, 1))
