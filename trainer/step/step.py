"""One training step, whole and in the paper's names (IP-Adapter, sections 3.1 and 3.2).

x0 clean latents, epsilon noise, t time, x_t noisy latents, c text: the base's conditioning, c image: what the adapter
reads of a picture, K' and V': its keys and values for every layer, epsilon_theta: the base with them.

Shapes: B batch, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ipadapter_core import AdapterSpec, Given

from ..base.frozen import Frozen
from ..base.processor import AdapterOutput
from ..base.protocol import FrozenBase
from ..data.batch import Batch
from .engine import Engine, base_losses
from .inputs import Inputs, to_inputs
from .objective import Objective
from .phases import ADAPTER, BASE, INPUTS, UPDATE, phase


class Trained(Protocol):
    """The adapter that is trained, wrapped for its processes, and its optimiser."""

    def accumulating(self) -> AbstractContextManager[None]: ...

    def forward(self, given: Given) -> tuple[Tensor, ...]: ...

    def scale(self) -> Tensor: ...

    def backward(
        self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: float
    ) -> Tensor | None: ...


@dataclass(frozen=True)
class Losses:
    """Of each sample of a batch, [B]: weighted, which is trained, and plain; and how noisy it was, 0..1.

    norm: of the gradient, where the optimiser has moved; on the device, as all of it.
    """

    weighted: Tensor
    plain: Tensor
    noisiness: Tensor
    norm: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """What stays the same from step to step. engine: how the base's forward and backward are run."""

    frozen: Frozen
    objective: Objective
    spec: AdapterSpec
    engine: Engine

    def inputs(self, batch: Batch, time: Tensor | None = None) -> Inputs:
        """A batch to what a step reads, on the device. time: [B]; None draws the times as in training."""
        with phase(INPUTS):
            time = self.objective.time(batch.uniform) if time is None else time
            return to_inputs(batch, self.frozen, self.spec, time)

    def train(self, inputs: Inputs, trained: Trained, learning_rate: float) -> Losses:
        """Forward and backward of one batch, and in the last batch of a step the optimiser's step."""
        with trained.accumulating():
            with phase(ADAPTER):
                outputs = trained.forward(inputs.given)  # K' and V' from c image
            with phase(BASE):  # x_t, epsilon_theta, the losses; back to K' and V' (and LoRA)
                found = self.engine(inputs.of_base() | {"scale": trained.scale()}, outputs)
            with phase(UPDATE):  # for projection, K' and V' (and LoRA) alone
                norm = trained.backward(outputs, found.gradients, learning_rate)
        return Losses(found.weighted, found.plain, self.objective.noisiness(inputs.time), norm)


def losses(base: FrozenBase, objective: Objective, inputs: Inputs, image: AdapterOutput) -> Tensor:
    """|epsilon - epsilon_theta(x_t, c text, c image, t)|^2 of each sample, mean over C, h, w: [B], fp32 (eq. 6).

    For other objectives than DDPM's, their target in place of epsilon.
    """
    return base_losses(base, objective, inputs.x0, inputs.noise, inputs.time, inputs.conditioning, image)
