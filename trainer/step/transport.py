"""The adapter as DDP and DeepSpeed want it: one module whose forward takes and gives flat tensors."""

from __future__ import annotations

from torch import Tensor, nn

from ipadapter_core import Given, IPAdapter

from ..base.processor import AdapterOutput
from .adapter import adapter_output
from .lora import lora_pairs


class TrainedAdapter(nn.Module):
    """What an adapter reads to all K' and V', and its LoRA.

    With appended attention K' and V' stay the base's own, and only the projection is trained.
    """

    def __init__(self, adapter: IPAdapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.layers = adapter.spec.layers

    def forward(self, features: Tensor | None, identities: Tensor | None = None) -> tuple[Tensor, ...]:
        """Features [B, E] or [B, S, F], identities [B, 512] to K', V' [B, T, D] of the layers in order, k, v, k, v, ...

        After them the LoRA's matrices, up, down, up, down, ...
        """
        keys_values, lora = adapter_output(self.adapter, Given(features, identities))
        return tuple(
            tensor for pair in (*(keys_values[index] for index in self.layers), *lora.values()) for tensor in pair
        )

    def by_layer(self, flat: tuple[Tensor, ...]) -> AdapterOutput:
        """What `forward` gave, by place."""
        found = list(zip(flat[::2], flat[1::2], strict=True))
        count = len(self.layers)
        lora = dict(zip(lora_pairs(self.adapter), found[count:], strict=True))
        return AdapterOutput(dict(zip(self.layers, found[:count], strict=True)), lora)
