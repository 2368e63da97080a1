"""Which device a training computes on, and in which number format."""

from __future__ import annotations

import torch
from torch import Tensor

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


def use_tf32(device: torch.device, precision: str) -> None:
    """Let what stays in fp32 beside half-precision parts multiply in TF32 on CUDA: finer than those, and much faster.

    With run.precision = fp32 products stay exact.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "fp32"


def moved(value: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; to CUDA from pinned memory, so that the host does not wait for the device."""
    if device.type != "cuda" or value.is_cuda:
        return value.to(device)
    return (value if value.is_pinned() else value.pin_memory()).to(device, non_blocking=True)
