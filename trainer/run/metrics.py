"""Loss and speed between two lines of the log."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..step.step import Losses

QUARTILES = 4
# What processes sum after each step: weighted loss, plain loss, samples, losses that are not finite, asked to stop;
# then plain loss and samples of each quartile of noisiness.
WEIGHTED, PLAIN, SAMPLES, BROKEN, STOP, OF_QUARTILE = 0, 1, 2, 3, 4, 5


def step_sums(losses: Losses) -> Tensor:
    """The sums of one batch's losses, one vector in the order above."""
    kind = torch.float32 if losses.plain.device.type == "mps" else torch.float64
    weighted, plain = losses.weighted.to(kind), losses.plain.to(kind)
    quartile = (losses.noisiness * QUARTILES).long().clamp(0, QUARTILES - 1)
    of_quartile = torch.zeros(2, QUARTILES, dtype=kind, device=plain.device)
    of_quartile[0].index_add_(0, quartile, plain)
    of_quartile[1].index_add_(0, quartile, torch.ones_like(plain))
    count = torch.full((), len(plain), dtype=kind, device=plain.device)  # made there: nothing is copied
    broken = (~torch.isfinite(weighted)).sum().to(kind)
    head = torch.stack([weighted.sum(), plain.sum(), count, broken, torch.zeros_like(count)])
    return torch.cat([head, of_quartile.flatten()])


@dataclass
class Window:
    """Sums since the last line of the log, and the time that went."""

    sums: Tensor | None = None
    norm: float = 0.0
    steps: int = 0
    waited: float = 0.0  # seconds for data
    started: float = 0.0

    def add(self, sums: Tensor, norm: float, waited: float) -> None:
        self.sums = sums if self.sums is None else self.sums + sums
        self.norm += norm
        self.steps += 1
        self.waited += waited

    def numbers(self, now: float) -> dict[str, float]:
        """Means of the window, which ends `now`, by name; `loss/q1` is of the least noisy quarter of the times."""
        assert self.sums is not None
        values, seconds = self.sums.tolist(), now - self.started
        samples = values[SAMPLES]
        out = {
            "loss": values[WEIGHTED] / samples,
            "loss/plain": values[PLAIN] / samples,
            "gradient_norm": self.norm / self.steps,
            "samples_per_second": samples / seconds,
            "data_wait": self.waited / seconds,
        }
        for quartile in range(QUARTILES):
            total, count = values[OF_QUARTILE + quartile], values[OF_QUARTILE + QUARTILES + quartile]
            if count:
                out[f"loss/q{quartile + 1}"] = total / count
        return out

    def restart(self, now: float) -> None:
        self.sums, self.norm, self.steps, self.waited, self.started = None, 0.0, 0, 0.0, now
