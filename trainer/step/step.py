"""One training step, whole and in the paper's names (IP-Adapter, sections 3.1 and 3.2).

x0 clean latents, epsilon noise, t time, x_t noisy latents, c text: the base's conditioning, c image: what the adapter
reads of a picture, K' and V': its keys and values for every layer, epsilon_theta: the base with them.

Shapes: B batch, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from ipadapter_core import AdapterSpec, Given

from ..base.frozen import Frozen
from ..base.processor import AdapterOutput
from ..base.protocol import FrozenBase
from ..data.batch import Batch
from .inputs import Inputs, to_inputs
from .objective import Objective


class Trained(Protocol):
    """The adapter that is trained, wrapped for its processes, and its optimiser."""

    def accumulating(self) -> AbstractContextManager[None]: ...

    def adapter_output(self, given: Given) -> AdapterOutput: ...

    def backward(self, loss: Tensor, learning_rate: float) -> float | None: ...


@dataclass(frozen=True)
class Losses:
    """Of each sample of a batch, [B]: weighted, which is trained, and plain; and how noisy it was, 0..1.

    norm: of the gradient, where the optimiser has moved.
    """

    weighted: Tensor
    plain: Tensor
    noisiness: Tensor
    norm: float | None = None


@dataclass(frozen=True)
class Step:
    """What stays the same from step to step."""

    frozen: Frozen
    objective: Objective
    spec: AdapterSpec

    def inputs(self, batch: Batch) -> Inputs:
        return to_inputs(batch, self.frozen, self.spec)

    def train(self, batch: Batch, trained: Trained, learning_rate: float) -> Losses:
        """Forward and backward of one batch, and in the last batch of a step the optimiser's step."""
        inputs, objective = self.inputs(batch), self.objective  # x0, epsilon, c text, c image: encoded, or cached
        t = objective.time(batch.uniform).to(self.frozen.device)
        with trained.accumulating():
            image = trained.adapter_output(inputs.given)  # K' and V' from c image
            plain = losses(self.frozen.base, objective, inputs, t, image)
            weighted = plain * objective.weight(t)
            norm = trained.backward(weighted.mean(), learning_rate)  # for projection, K' and V' (and LoRA) alone
        self.frozen.base.forget()
        return Losses(weighted.detach(), plain.detach(), objective.noisiness(t), norm)


def losses(base: FrozenBase, objective: Objective, inputs: Inputs, t: Tensor, image: AdapterOutput) -> Tensor:
    """|epsilon - epsilon_theta(x_t, c text, c image, t)|^2 of each sample, mean over C, h, w: [B], fp32 (eq. 6).

    For other objectives than DDPM's, their target in place of epsilon.
    """
    x_t = objective.noisy(inputs.x0, inputs.noise, t)
    prediction = base.denoise(x_t, t, inputs.conditioning, image)
    target = objective.target(inputs.x0, inputs.noise, t)
    return F.mse_loss(prediction.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
