"""Processes and the optimiser: one process or DDP here, DeepSpeed ZeRO in `zero.py`, with one face.

Only the adapter is wrapped; the frozen parts live on every process. What is saved is gathered: the same tensors by the
same names whatever the number of processes, so that a run goes on with another number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ipadapter_core import Given

from ...base.device import choose_device
from ...settings.config import Config
from ...step.adapter import trained_parameters
from ...step.transport import TrainedAdapter
from ..optimisers import build_optimiser, load_state, state_of


class Parallel:
    """Where a process stands among the others, and the wrapped adapter with its optimiser after `prepare`.

    Raises ValueError when the config asks for what this machine lacks.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._share: Tensor | None = None
        device = choose_device(config.run.device)
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            gradient_accumulation_steps=config.optimiser.accumulation,
            mixed_precision=self._mixed_precision(),
            step_scheduler_with_optimizer=False,
        )
        if self.num_processes != config.run.processes:
            raise ValueError(
                f"run.processes is {config.run.processes}, but {self.num_processes} were started: "
                f"start with --processes {config.run.processes}, or accelerate launch --num_processes"
            )

    def _mixed_precision(self) -> str:
        # with fp16 the loss is scaled; bf16 needs nothing from accelerate, since the trained weights compute in fp32
        return "fp16" if self.config.run.precision == "fp16" else "no"

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def num_processes(self) -> int:
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def prepare(self, trained: TrainedAdapter) -> None:
        """Wrap the adapter and make its optimiser."""
        self.trained = trained.to(self.device)
        self.model, self.optimiser = self.accelerator.prepare(self.trained, build_optimiser(self.config, trained))

    def forward(self, given: Given) -> tuple[Tensor, ...]:
        """K' and V' of all layers and the LoRA, flat, through the wrapped adapter, so that gradients are reduced."""
        outputs: tuple[Tensor, ...] = self.model(*given)
        return outputs

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Around forward and backward of one batch: gradients are reduced in the last of a step only."""
        with self.accelerator.accumulate(self.model):
            yield

    def scale(self) -> Tensor:
        """What a batch's mean loss is multiplied with before its backward: a share of the step, and fp16's scale."""
        if self._share is None:
            self._share = torch.full((), 1 / self.config.optimiser.accumulation, device=self.device)
        scaler = self.accelerator.scaler
        return self._share if scaler is None else scaler.scale(self._share)

    def backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: float) -> Tensor | None:
        """Backward of what `forward` gave, by the gradients of each; in the last batch of a step the optimiser's step.

        Then the gradient's norm, on the device. A step whose gradient is not finite changes nothing.
        """
        torch.autograd.backward(outputs, gradients)
        if not self.accelerator.sync_gradients:
            return None
        parameters = [parameter for _, parameter in self._named()]
        if self.config.optimiser.clip:
            norm = self.accelerator.clip_grad_norm_(parameters, self.config.optimiser.clip)
        else:
            self.accelerator.unscale_gradients(self.optimiser)
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self._move(norm)
        self.optimiser.zero_grad()
        return norm

    def _move(self, norm: Tensor) -> None:
        """The optimiser's step, unless the gradient is not finite: decided on the device where the optimiser can."""
        inner = self.optimiser.optimizer
        if self.accelerator.scaler is not None:  # fp16's scale decides
            self.optimiser.step()
        elif getattr(inner, "_step_supports_amp_scaling", False):
            inner.grad_scale, inner.found_inf = None, (~norm.isfinite()).float()
            self.optimiser.step()
        elif norm.isfinite():
            self.optimiser.step()

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all processes."""
        return self.accelerator.reduce(values.to(self.device), "sum")

    def gather_objects(self, value: Any) -> list[Any]:
        """One picklable value of each process, by rank."""
        if self.num_processes == 1:
            return [value]
        out: list[Any] = [None] * self.num_processes
        torch.distributed.all_gather_object(out, value)
        return out

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def weights(self) -> dict[str, Tensor]:
        """The adapter's fp32 weights by the file's names, on the CPU. Every process must call it."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._named()}

    def state(self) -> dict[str, Tensor]:
        """The optimiser's state, "key.weight name" to a whole tensor on the CPU. Every process must call it."""
        return state_of(self.optimiser.optimizer, self._named())

    def load(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], step: int) -> None:
        """Go on from what `weights` and `state` gave after `step` steps, of any number of processes."""
        with torch.no_grad():
            for name, parameter in self._named():
                parameter.copy_(weights[name])
        load_state(self.optimiser.optimizer, self._named(), state, step)

    def scale_state(self) -> dict[str, Any]:
        """The state of fp16's loss scale, JSON-able; empty for other precisions."""
        scaler = self.accelerator.scaler
        return dict(scaler.state_dict()) if scaler is not None else {}

    def load_scale(self, state: dict[str, Any]) -> None:
        if state and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state)

    def state_bytes(self) -> int:
        """Bytes of optimiser state that this process holds."""
        return count_bytes(self.optimiser.optimizer)

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return trained_parameters(self.trained.adapter)


def count_bytes(optimiser: torch.optim.Optimizer) -> int:
    """Bytes of an optimiser's state, without its step counters."""
    tensors = [value for state in optimiser.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.ndim)
