"""DDIM with classifier-free guidance in diffusers, many pictures at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

STEPS = 25
Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Denoiser:
    """The base with text: noisy latents and a timestep to the predictions without and with it."""

    def __init__(self, unet: UNet2DConditionModel, text: Tensor, empty: Tensor) -> None:
        self.unet, self.text, self.empty = unet, text, empty.expand_as(text)

    def __call__(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.cat([self.empty, self.text])
        without, wanted = self.unet(torch.cat([latents, latents]), timestep, states).sample.chunk(2)
        return without, wanted


@torch.no_grad()
def sample(predict: Predict, count: int, guidance: float, seed: int = 0, steps: int = STEPS) -> Tensor:
    """Latents [N, 4, 8, 8]; the noise of number i is seeded with seed + i."""
    noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed + number)) for number in range(count)]
    return denoise(predict, torch.stack(noise), guidance, steps)


@torch.no_grad()
def denoise(predict: Predict, latents: Tensor, guidance: float, steps: int = STEPS) -> Tensor:
    """Noise [N, 4, 8, 8] to latents, on its device."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        without, wanted = predict(latents, timestep)
        latents = scheduler.step(without + guidance * (wanted - without), timestep, latents).prev_sample
    return latents
