"""The diffusion loss: what the UNet should predict, how timesteps are drawn and how samples are weighted.

Shapes: B batch, C latent channels, h and w latent height and width; timesteps are whole numbers 0..999.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor

from ..settings.config import OptimiserConfig

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def signal_to_noise(scheduler: DDPMScheduler) -> Tensor:
    """The signal-to-noise ratio of every timestep, fp64."""
    kept = scheduler.alphas_cumprod.double()
    return kept / (1 - kept).clamp_min(1e-12)


def timestep_probabilities(config: OptimiserConfig, scheduler: DDPMScheduler) -> Tensor:
    """The probability of drawing each timestep, fp64; uniform, or noisy ones more often: max(.15, min(1, 5 / SNR))."""
    snr = signal_to_noise(scheduler)
    weights = torch.ones_like(snr) if config.timesteps == "uniform" else (5 / snr.clamp_min(1e-12)).clamp(0.15, 1.0)
    return weights / weights.sum()


def loss_weights(config: OptimiserConfig, scheduler: DDPMScheduler) -> Tensor:
    """The weight of a sample's loss at each timestep, fp32.

    min_snr: arXiv 2303.09556 for the scheduler's prediction. snr: clamp(1 / SNR, .3, 5), mean 1 over the timesteps
    drawn: more weight to high noise, where layout and pattern are decided.
    """
    snr = signal_to_noise(scheduler)
    if config.loss_weighting == "none":
        return torch.ones(len(snr))
    if config.loss_weighting == "snr":
        weights = (1 / snr.clamp_min(1e-12)).clamp(0.3, 5.0)
        return (weights / (weights * timestep_probabilities(config, scheduler)).sum()).float()
    capped = snr.clamp_max(config.min_snr_gamma)
    divisor = {"epsilon": snr.clamp_min(1e-12), "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    return (capped / divisor[scheduler.config.prediction_type]).float()


def target(scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet should give for these samples [B, C, h, w]: noise, velocity or latents, as the scheduler says.

    Raises ValueError for a prediction that is none of these.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    if kind == "sample":
        return latents
    raise ValueError(f"the base predicts {kind!r}: expected one of {', '.join(PREDICTIONS)}; set model.prediction")


def sample_losses(prediction: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared error of each sample, [B], fp32."""
    return F.mse_loss(prediction.float(), wanted.float(), reduction="none").mean(dim=(1, 2, 3))
