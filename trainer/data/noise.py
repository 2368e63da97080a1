"""The noise of a sample, drawn on the CPU: the same on every device and in every process that draws it."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_noise(seed: int, shape: tuple[int, ...], offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """What a latent is drawn with, and its noise; both of `shape` [C, h, w], fp32, by a generator of their own.

    offset: optimiser.noise_offset, of a number for each channel that is added to the noise.
    """
    generator = torch.Generator().manual_seed(seed)  # the order of the draws is part of what a run is
    drawn = torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    if offset:
        noise = noise + offset * torch.randn(shape[0], 1, 1, generator=generator)
    return drawn, noise
