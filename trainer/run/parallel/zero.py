"""DeepSpeed ZeRO 1, 2 and 3: optimiser state (and gradients, and weights) in parts, one part on each process.

accelerate gives the process group; the engine is DeepSpeed's own, because accelerate's runs on GPUs alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ipadapter_core import Given
from ipadapter_core.method.spec import IDENTITY_DIM

from ...base.device import choose_device
from ...settings.config import Config
from ...step.transport import TrainedAdapter
from ..optimisers import build_optimiser, moments
from .plain import Parallel, count_bytes


class ZeroParallel(Parallel):
    """Parallel over DeepSpeed's engine. Raises ValueError when DeepSpeed is not installed."""

    def __init__(self, config: Config) -> None:
        if choose_device(config.run.device) == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"  # read when DeepSpeed is imported
        try:
            import deepspeed
        except ImportError as error:
            raise ValueError(
                f"run.parallel = {config.run.parallel!r} needs DeepSpeed, which is not installed: "
                "pip install deepspeed, or choose ddp (none for one process)"
            ) from error
        self.deepspeed = deepspeed
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        for name, value in alone.items():  # DeepSpeed wants a process group even of one
            os.environ.setdefault(name, value)
        super().__init__(config)

    def _mixed_precision(self) -> str:
        return "no"  # the engine scales the loss itself

    def prepare(self, trained: TrainedAdapter) -> None:
        self.trained = trained.to(self.device)
        self.batches = 0  # of this step, so far
        self.model, self.optimiser, _, _ = self.deepspeed.initialize(
            model=self.trained,
            optimizer=build_optimiser(self.config, self.trained),
            config=engine_config(self.config),
            dist_init_required=False,
        )

    def forward(self, given: Given) -> tuple[Tensor, ...]:
        return self._forward(*given)

    def _forward(self, *read: Tensor | None) -> tuple[Tensor, ...]:
        is_half = self.config.run.precision == "fp16"
        return self.model(*(value.half() if is_half and value is not None else value for value in read))

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        self.batches += 1
        yield

    def scale(self) -> Tensor:
        """fp16's scale; the engine shares out the step's batches itself."""
        scale = self.optimiser.cur_scale if self.config.run.precision == "fp16" else 1.0
        return torch.full((), scale, device=self.device)

    def backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], learning_rate: float) -> Tensor | None:
        is_last = self.batches == self.config.optimiser.accumulation
        self.model.set_gradient_accumulation_boundary(is_boundary=is_last)
        # the engine takes a loss: this one has these gradients, and is scaled by the engine again
        scale, pairs = self.scale(), zip(outputs, gradients, strict=True)
        self.model.backward(sum((output.float() * (gradient.float() / scale)).sum() for output, gradient in pairs))
        if not is_last:
            return None
        self.batches = 0
        self._step(learning_rate)
        norm = self.model.get_global_grad_norm()
        return torch.as_tensor(0.0 if norm is None else norm, device=self.device)

    def _step(self, learning_rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.model.step()

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(parameter).cpu().clone() for name, parameter in self._named()}

    def state(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        return {
            f"{key}.{name}": safe_get_full_optimizer_state(parameter, key).cpu().clone()
            for name, parameter in self._named()
            for key in moments(self.config)
        }

    def load(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], step: int) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self._make_state()
        for name, parameter in self._named():
            safe_set_full_fp32_param(parameter, weights[name].to(self.device))
            for key in moments(self.config):
                safe_set_full_optimizer_state(parameter, state[f"{key}.{name}"].to(self.device), key)
        for values in self._inner().state.values():
            if "step" in values:
                values["step"].fill_(float(step))
        # the weights that compute are kept apart from the fp32 ones that are trained: give them the same values
        with torch.no_grad():
            for name, parameter in self._named():
                is_part = hasattr(parameter, "ds_id")
                with self.deepspeed.zero.GatheredParameters(parameter, modifier_rank=0, enabled=is_part):
                    parameter.data.copy_(weights[name].to(parameter))

    def _make_state(self) -> None:
        """DeepSpeed makes the optimiser's state at its first step: one of gradient and rate 0 changes no weight."""
        spec = self.trained.adapter.spec
        shape = (1, spec.feature_dim) if spec.feature == "pooled" else (1, 2, spec.feature_dim)
        features = torch.zeros(shape, device=self.device) if spec.feature else None
        outputs = self._forward(features, torch.zeros(1, IDENTITY_DIM, device=self.device) if spec.identity else None)
        self.model.set_gradient_accumulation_boundary(is_boundary=True)
        self.model.backward(sum(output.sum() * 0 for output in outputs))
        self._step(0.0)

    def scale_state(self) -> dict[str, Any]:
        scaler = getattr(self.optimiser, "loss_scaler", None)
        if self.config.run.precision != "fp16" or scaler is None:
            return {}
        return {key: value for key, value in vars(scaler).items() if isinstance(value, int | float)}

    def load_scale(self, state: dict[str, Any]) -> None:
        if state:
            vars(self.optimiser.loss_scaler).update(state)

    def state_bytes(self) -> int:
        return count_bytes(self._inner())

    def _inner(self) -> torch.optim.Optimizer:
        return self.optimiser.optimizer


def engine_config(config: Config) -> dict[str, Any]:
    """DeepSpeed's own settings for this training."""
    zero: dict[str, Any] = {"stage": int(config.run.parallel[-1])}
    if config.run.offload_optimiser:
        zero["offload_optimizer"] = {"device": "cpu"}
    out: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.run.batch_size,
        "gradient_accumulation_steps": config.optimiser.accumulation,
        "gradient_clipping": config.optimiser.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if config.run.precision == "fp16":
        out["fp16"] = {"enabled": True}
    return out
