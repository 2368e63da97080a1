"""How far a run of the sampler is, by its sigma."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

POINTS = 1000
END = 1e-6  # at 0 and at 1 ComfyUI answers with numbers beyond all noise, so the table begins and ends just inside


class Progress:
    """Sigma to progress, 0 at the start of the sampling to 1 at its end, linear between the points of a table.

    to_sigma: ComfyUI's `percent_to_sigma`, which takes progress for all its name; it falls.
    """

    def __init__(self, to_sigma: Callable[[float], float]) -> None:
        inside = [END, *(point / POINTS for point in range(1, POINTS)), 1 - END]
        self.progress = inside[::-1]
        self.sigmas = [float(to_sigma(progress)) for progress in self.progress]  # ascending

    def __call__(self, sigma: float) -> float:
        above = bisect_left(self.sigmas, sigma)
        if above == 0:
            return 1.0
        if above == len(self.sigmas):
            return 0.0
        low, high = self.sigmas[above - 1], self.sigmas[above]
        first, last = self.progress[above - 1], self.progress[above]
        return first + (last - first) * (sigma - low) / (high - low)
