"""The optimiser that a config names, from the library that has it; what it knows, as tensors that go into a file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adafactor, AdamW, Optimizer

from ..settings.config import Config
from ..settings.optimisers import OPTIMISERS, name_of
from ..step.adapter import trained_parameters

GROUP = "group"  # stands for a weight's name where a value belongs to all weights
# What Prodigy learns about the rate, and its own count of steps: numbers of Python's, beside the tensors.
OF_GROUP = {"d": float, "d_max": float, "d_numerator": float, "k": int}
Named = Sequence[tuple[str, nn.Parameter]]


def build_optimiser(config: Config, trained: nn.Module) -> Optimizer:
    """The optimiser over every trained weight. Raises ValueError when its library is not installed."""
    settings, name = config.optimiser, name_of(config.optimiser)
    parameters = [parameter for _, parameter in trained_parameters(trained)]
    options: dict[str, Any] = {"lr": settings.learning_rate}
    if settings.betas:
        options["betas"] = (settings.betas[0], settings.betas[1])
    if settings.epsilon:
        options["eps"] = settings.epsilon
    if name == "prodigy":
        made = _library(name, "prodigyopt").Prodigy(parameters, **options, safeguard_warmup=settings.warmup_steps > 0)
        for group in made.param_groups:  # given to its constructor, it prints a line on every process
            group["weight_decay"] = settings.weight_decay
        return made
    if name == "adamw":  # fused: one launch, and what is not finite is left out on the device
        options["fused"] = True
    return _kind(name)(parameters, **options, weight_decay=settings.weight_decay)


def _kind(name: str) -> Any:
    if name == "adamw8bit":
        return _library(name, "bitsandbytes.optim").AdamW8bit
    if name == "lion":
        return _library(name, "lion_pytorch").Lion
    return Adafactor if name == "adafactor" else AdamW


def _library(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = OPTIMISERS[name].package
        raise ValueError(
            f'the optimiser {name} needs {package}: pip install {package}, or choose optimiser.name = "adamw"'
        ) from error


def moments(config: Config) -> tuple[str, ...]:
    """The names of what an optimiser that ZeRO may part keeps of each weight."""
    return ("exp_avg",) if name_of(config.optimiser) == "lion" else ("exp_avg", "exp_avg_sq")


def state_of(optimiser: Optimizer, named: Named) -> dict[str, Tensor]:
    """All that an optimiser has learned but its steps, "key.weight name" to a whole tensor on the CPU."""
    tensors = {
        f"{key}.{name}": value.detach().cpu().clone()
        for name, parameter in named
        for key, value in optimiser.state[parameter].items()
        if isinstance(value, Tensor) and key != "step"
    }
    group = optimiser.param_groups[0]
    return tensors | {
        f"{key}.{GROUP}": torch.tensor(float(group[key]), dtype=torch.float64) for key in OF_GROUP if key in group
    }


def load_state(optimiser: Optimizer, named: Named, state: Mapping[str, Tensor], step: int) -> None:
    """Give an optimiser, as `build_optimiser` made it, what `state_of` gave after `step` steps."""
    for name, parameter in named:
        keys = [key.removesuffix(f".{name}") for key in state if key.endswith(f".{name}")]
        optimiser.state[parameter] = _steps(optimiser, step, parameter.device) | {
            key: state[f"{key}.{name}"].to(parameter.device, copy=True) for key in keys
        }
    for group in optimiser.param_groups:
        group |= {key: kind(state[f"{key}.{GROUP}"]) for key, kind in OF_GROUP.items() if f"{key}.{GROUP}" in state}


def _steps(optimiser: Optimizer, step: int, device: torch.device) -> dict[str, Any]:
    """The count of steps beside a weight's state: torch's optimisers count in a tensor, others in Python or not."""
    if isinstance(optimiser, AdamW):
        return {"step": torch.tensor(float(step), device=device)}
    if isinstance(optimiser, Adafactor):
        return {"step": torch.tensor(float(step))}
    return {} if type(optimiser).__name__ == "Lion" else {"step": step}
