"""A step's numbers on their way to the host, read while the next step runs: the host never waits for the last one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .metrics import BROKEN


@dataclass
class Late:
    """Sums over all processes, the gradient's norm, and the loss of each of this process's samples.

    step: its number, from 1. rate: its learning rate. waited: seconds for which the device had no data. names: of this
    process's samples, in the order of the losses.
    """

    step: int
    rate: float
    waited: float
    names: Sequence[str]
    sums: Tensor
    norm: Tensor
    losses: Tensor
    launched: float = field(init=False)  # when the host had it under way, by time.perf_counter
    done: torch.cuda.Event | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.launched = time.perf_counter()
        numbers = torch.cat([self.sums, self.norm.detach().to(self.sums).view(1), self.losses.to(self.sums)])
        if numbers.is_cuda:
            numbers = numbers.to("cpu", non_blocking=True)  # into pinned memory
            self.done = torch.cuda.Event()
            self.done.record()
        self.sums, self.norm, self.losses = torch.split(numbers, [len(self.sums), 1, len(self.names)])

    def wait(self) -> None:
        """Until the device has come this far, and the numbers are here."""
        if self.done is not None:
            self.done.synchronize()

    def is_broken(self, precision: str) -> bool:
        """Whether a loss or the gradient is not finite, on any process. fp16's scale is sometimes too large: that
        step is left out, and the training goes on.
        """
        return bool(self.sums[BROKEN]) or not (precision == "fp16" or bool(self.norm.isfinite()))

    @property
    def broken(self) -> list[str]:
        """This process's samples whose loss is not finite."""
        return [name for name, fine in zip(self.names, self.losses.isfinite().tolist(), strict=True) if not fine]

    def sentence(self, broken: Sequence[str], last: str) -> str:
        """What has happened, for `broken` samples of all processes. last: the last good checkpoint."""
        what = f"the loss of step {self.step} is not finite for {', '.join(broken[:4])}"
        if not broken:
            what = f"the gradient of step {self.step} is not finite, for one of its samples or more"
        advice = "look at that sample, or lower the learning rate or choose bf16"
        return f"{what}: {advice}; the last good checkpoint is {last}"
