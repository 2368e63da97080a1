"""Which device a training computes on, and in which number format."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # by run.precision


def choose_device(wanted: str) -> str:
    """The device that a config names, or the best that this machine has. Raises ValueError when it is not there."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if has[name])
    if not has[wanted]:
        there = ", ".join(name for name, present in has.items() if present)
        raise ValueError(f"run.device = {wanted!r}, but this machine has only {there}: choose one of these or auto")
    return wanted
