"""FaceID's LoRA at work: a matrix of an attention layer changed by a product of two thin ones (arXiv 2106.09685)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def lora_linear(linear: Any, x: Tensor, pair: tuple[Tensor, Tensor] | None) -> Tensor:
    """(W + up @ down) x without making that matrix; x [..., C] to [..., D]. pair: up [D, R], down [R, C], or None."""
    out: Tensor = linear(x)
    if pair is None:
        return out
    up, down = (half.to(out.dtype) for half in pair)
    return out + F.linear(F.linear(x, down), up)
