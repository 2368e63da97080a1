"""The learning rate of a step: a pure function, so that there is no state to save."""

from __future__ import annotations

import math

from ..settings.config import OptimiserConfig


def learning_rate(settings: OptimiserConfig, total: int, step: int) -> float:
    """The rate of the optimiser's step number `step` (from 0) of `total`: linear warm-up, then as the schedule says."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - done)
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return settings.learning_rate
