"""FaceID's LoRA in training: low-rank matrices beside the base's own, trained with the adapter and kept in its file.

Shapes: R rank, D what a matrix of an attention layer gives, C what it reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ipadapter_core import MATRICES, IPAdapter, Lora

from ..base.sites import Place, Sites


class Half(nn.Module):
    """One of the two matrices. Called, it gives its weight as a tensor of its own.

    ZeRO-3 parts a weight again as soon as the module that holds it has run, and K' and V' are used long after.
    """

    def __init__(self, rows: int, columns: int, **factory: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns, **factory))

    def forward(self) -> Tensor:
        return self.weight.clone()


class Pair(nn.Module):
    """down [R, C] and up [D, R] of one matrix: at first without effect (LoRA, arXiv 2106.09685)."""

    def __init__(self, rows: int, columns: int, rank: int, **factory: Any) -> None:
        super().__init__()
        self.down = Half(rank, columns, **factory)
        self.up = Half(rows, rank, **factory)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.up(), self.down()


def add_lora(adapter: IPAdapter, sites: Sites, rank: int, **factory: Any) -> None:
    """Give an adapter a new LoRA for every attention layer of the base; its parameters get the file's names."""
    for place, (rows, columns) in sites.matrices.items():
        _put(adapter, place, Pair(rows, columns, rank, **factory))


def load_lora(adapter: IPAdapter, sites: Sites, lora: Lora, device: Any = None) -> None:
    """Give an adapter the LoRA of a file, in fp32.

    Raises ValueError when a matrix of it has no place in the base.
    """
    for (index, name), (up, down) in lora.items():
        found = (len(up), down.shape[1])
        if (wanted := sites.matrices.get((index, name))) != found:
            raise ValueError(
                f"the adapter's LoRA changes a {found[0]} x {found[1]} matrix {name} in layer {index}, the base has "
                f"{'none' if wanted is None else f'{wanted[0]} x {wanted[1]}'}: give the base that it was trained with"
            )
        pair = Pair(*found, rank=len(down), dtype=torch.float32, device="meta")
        values = {"up.weight": up, "down.weight": down}
        pair.load_state_dict({key: value.to(device, torch.float32) for key, value in values.items()}, assign=True)
        _put(adapter, (index, name), pair)


def lora_pairs(adapter: IPAdapter) -> dict[Place, Pair]:
    """The LoRA of an adapter by place; empty where it has none."""
    return {
        (int(index), name): getattr(layer, f"{name}_lora")
        for index, layer in adapter.ip_adapter.items()
        for name in MATRICES
        if hasattr(layer, f"{name}_lora")
    }


def _put(adapter: IPAdapter, place: Place, pair: Pair) -> None:
    index, name = place
    if str(index) not in adapter.ip_adapter:
        adapter.ip_adapter[str(index)] = nn.Module()  # self-attention, which has no K' and V'
    adapter.ip_adapter[str(index)].add_module(f"{name}_lora", pair)
