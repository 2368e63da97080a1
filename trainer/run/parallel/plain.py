"""Processes and the optimiser: one process or DDP here, DeepSpeed ZeRO in `zero.py`, with one face.

Only the adapter is wrapped; the frozen parts live on every process. What is saved is gathered: the same tensors by the
same names whatever the number of processes, so that a run goes on with another number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ipadapter_core import Given

from ...base.device import choose_device
from ...base.processor import AdapterOutput
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

    def adapter_output(self, given: Given) -> AdapterOutput:
        """K' and V' of all layers and the LoRA, through the wrapped adapter, so that gradients are reduced."""
        return self.trained.by_layer(self.model(*given))

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Around forward and backward of one batch: gradients are reduced in the last of a step only."""
        with self.accelerator.accumulate(self.model):
            yield

    def backward(self, loss: Tensor, learning_rate: float) -> float | None:
        """Backward of a batch's mean loss; in the last of a step the optimiser's step too, and the gradient's norm."""
        self.accelerator.backward(loss)
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
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(norm)

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
