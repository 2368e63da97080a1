"""The moving average of the adapter's weights (EMA): often better to sample from than the last ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .adapter import trained_parameters


class Ema:
    """fp32 average of a module's trained parameters. decay: e.g. 0.9999; it grows to that over the first steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        trained = dict(trained_parameters(module))
        self.names, self.parameters = list(trained), list(trained.values())
        self.values = [parameter.detach().float().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the optimiser's step number `step` (from 1): average += (1 - decay) * (weights - average)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [parameter.float() for parameter in self.parameters], 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by weight name, on the CPU."""
        return {name: value.cpu().clone() for name, value in zip(self.names, self.values, strict=True)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""
        for name, value in zip(self.names, self.values, strict=True):
            value.copy_(tensors[name])
