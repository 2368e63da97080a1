"""FaceID's LoRA: low-rank changes of the base model's own attention, kept in the adapter's file.

Every attention layer, self and cross alike, has them for q, k, v and the output, without an alpha: the weight W of a
layer becomes W + strength * up @ down (LoRA, arXiv 2106.09685).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# The matrices that a LoRA changes, and the module of each in an attention layer of diffusers and of ComfyUI.
MATRICES = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
LORA_KEY = re.compile(rf"^ip_adapter\.(\d+)\.({'|'.join(MATRICES)})_lora\.(up|down)\.weight$")

# (checkpoint index, one of MATRICES) to (up [D, R], down [R, D or C]), R the rank.
Lora = dict[tuple[int, str], tuple[Tensor, Tensor]]


def lora_of(tensors: Mapping[str, Tensor]) -> Lora:
    """The LoRA matrices in a flat adapter; empty where it has none.

    Raises ValueError when half of a pair is missing or the two do not fit each other.
    """
    halves: dict[tuple[int, str], dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if match := LORA_KEY.match(key):
            halves.setdefault((int(match[1]), match[2]), {})[match[3]] = value
    for (index, name), pair in halves.items():
        if pair.keys() != {"up", "down"}:
            raise ValueError(
                f"the adapter lacks a half of its LoRA (ip_adapter.{index}.{name}_lora): download it again"
            )
        if pair["up"].ndim != 2 or pair["down"].ndim != 2 or pair["up"].shape[1] != pair["down"].shape[0]:
            raise ValueError(
                f"the adapter's LoRA ip_adapter.{index}.{name}_lora is {tuple(pair['up'].shape)} by "
                f"{tuple(pair['down'].shape)}, which do not fit each other: download it again"
            )
    return {place: (pair["up"], pair["down"]) for place, pair in halves.items()}
