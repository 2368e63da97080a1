"""What a base is trained to predict: how time is drawn, how a picture becomes noisy, the target, the loss's weight.

`Discrete` is the table of timesteps of SD1.5, SD2 and SDXL (DDPM, arXiv 2006.11239), `Flow` the rectified flow of the
bases after them (arXiv 2403.03206). A third one is a class like these and a line in `build_objective`.

Shapes: B batch, C latent channels, h and w latent height and width; x0 (clean) and noise are [B, C, h, w], scaled.
Time [B] is in the unit that the base reads: whole numbers 0..999, or for a flow 0..1000 with fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ..base.files import FLOW
from ..settings.config import OptimiserConfig
from ..settings.rules import check_flow

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class Sampler(Protocol):
    """From noise to a picture, as diffusers' schedulers are used: `set_timesteps`, then `step` at each of the times."""

    timesteps: Tensor

    def set_timesteps(self, num_inference_steps: int, *, device: torch.device) -> None: ...

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Any:
        """`.prev_sample` of it is x at the next time."""
        ...


class Objective(Protocol):
    """prediction: its name, for the adapter's metadata."""

    prediction: str

    def time(self, uniform: Tensor) -> Tensor:
        """Times [B] from uniform numbers [B] in [0, 1), fp64 on the CPU, by their probability in training."""
        ...

    def time_at(self, noisiness: Tensor) -> Tensor:
        """Times [B] of this noisiness [B] in [0, 1), fp64 on the CPU: to spread the held-out samples evenly."""
        ...

    def noisiness(self, time: Tensor) -> Tensor:
        """0 (clean) to 1 (noise) of times [B]."""
        ...

    def noisy(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the base is given: x0 with noise of these times."""
        ...

    def target(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the base should predict."""
        ...

    def weight(self, time: Tensor) -> Tensor:
        """The weight of each sample's loss, [B], fp32."""
        ...

    def sampler(self) -> Sampler:
        """A new sampler, with the settings of inference."""
        ...


def build_objective(scheduler: Mapping[str, Any], settings: OptimiserConfig) -> Objective:
    """The objective of a base, by its scheduler's config as diffusers writes it.

    Raises ValueError for a prediction that is not known, and for settings that do not go with a flow.
    """
    if scheduler.get("_class_name") == FLOW:
        check_flow(settings)
        return Flow(scheduler)
    return Discrete(scheduler, settings)


class Discrete:
    """A table of timesteps with their signal-to-noise ratios; the base predicts noise, velocity or x0.

    Raises ValueError for a prediction that is none of these.
    """

    def __init__(self, scheduler: Mapping[str, Any], settings: OptimiserConfig) -> None:
        self.scheduler: Any = DDPMScheduler.from_config(dict(scheduler))
        self.prediction = str(self.scheduler.config.prediction_type)
        if self.prediction not in PREDICTIONS:
            raise ValueError(
                f"the base predicts {self.prediction!r}: expected one of {', '.join(PREDICTIONS)}; set model.prediction"
            )
        self.count = int(self.scheduler.config.num_train_timesteps)
        self.snr = signal_to_noise(self.scheduler.alphas_cumprod)
        self.probabilities = timestep_probabilities(settings, self.snr)
        self.weights = loss_weights(settings, self.snr, self.probabilities, self.prediction)
        self._cumulative = torch.from_numpy(np.cumsum(self.probabilities.numpy()))

    def time(self, uniform: Tensor) -> Tensor:
        return torch.searchsorted(self._cumulative, uniform, right=True).clamp_max(self.count - 1)

    def time_at(self, noisiness: Tensor) -> Tensor:
        return (noisiness * self.count).long().clamp_max(self.count - 1)

    def noisiness(self, time: Tensor) -> Tensor:
        return time / self.count

    def noisy(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        found: Tensor = self.scheduler.add_noise(x0, noise, time)
        return found

    def target(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return x0
        velocity: Tensor = self.scheduler.get_velocity(x0, noise, time)
        return velocity

    def weight(self, time: Tensor) -> Tensor:
        if self.weights.device != time.device:  # once: a copy in every step would make the host wait for the device
            self.weights = self.weights.to(time.device)
        return self.weights[time]

    def sampler(self) -> Sampler:
        """DDIM with the settings of the paper's inference."""
        sampler: Sampler = DDIMScheduler.from_config(
            self.scheduler.config, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        )
        return sampler


class Flow:
    """Rectified flow: x = (1 - t) x0 + t noise, and the base predicts noise - x0; t in 0..1, time is 1000 t.

    t is logit-normal (mean 0, deviation 1), then shifted towards noise: t' = s t / (1 + (s - 1) t) with the base's s
    (arXiv 2403.03206, sections 3.1 and 5.3.2). Raises ValueError for a shift that depends on the resolution.
    """

    prediction = "flow"

    def __init__(self, scheduler: Mapping[str, Any]) -> None:
        self.config = dict(scheduler)
        if self.config.get("use_dynamic_shifting"):
            raise ValueError(
                "the base's shift depends on the resolution (use_dynamic_shifting in its scheduler_config.json), which "
                "is not supported: set it to false there, and shift to that of your resolution"
            )
        self.shift = float(self.config.get("shift", 1.0))
        self.count = int(self.config.get("num_train_timesteps", 1000))

    def time(self, uniform: Tensor) -> Tensor:
        t = torch.special.ndtri(uniform).sigmoid()
        return self.time_at(self.shift * t / (1 + (self.shift - 1) * t))

    def time_at(self, noisiness: Tensor) -> Tensor:
        return (noisiness * self.count).float()

    def noisiness(self, time: Tensor) -> Tensor:
        return time / self.count

    def noisy(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        t = self.noisiness(time).to(x0.dtype).view(-1, *[1] * (x0.ndim - 1))
        return (1 - t) * x0 + t * noise

    def target(self, x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        return noise - x0

    def weight(self, time: Tensor) -> Tensor:
        return torch.ones_like(time, dtype=torch.float32)

    def sampler(self) -> Sampler:
        """Euler's method on the base's own schedule."""
        sampler: Sampler = FlowMatchEulerDiscreteScheduler.from_config(self.config)
        return sampler


def signal_to_noise(alphas_cumprod: Tensor) -> Tensor:
    """The signal-to-noise ratio of every timestep, fp64."""
    kept = alphas_cumprod.double()
    return kept / (1 - kept).clamp_min(1e-12)


def timestep_probabilities(settings: OptimiserConfig, snr: Tensor) -> Tensor:
    """The probability of drawing each timestep, fp64; uniform, or noisy ones more often: max(.15, min(1, 5 / SNR))."""
    weights = torch.ones_like(snr) if settings.timesteps == "uniform" else (5 / snr.clamp_min(1e-12)).clamp(0.15, 1.0)
    return weights / weights.sum()


def loss_weights(settings: OptimiserConfig, snr: Tensor, probabilities: Tensor, prediction: str) -> Tensor:
    """The weight of a sample's loss at each timestep, fp32.

    min_snr: arXiv 2303.09556 for what the base predicts. snr: clamp(1 / SNR, .3, 5), mean 1 over the timesteps
    drawn: more weight to high noise, where layout and pattern are decided.
    """
    if settings.loss_weighting == "none":
        return torch.ones(len(snr))
    if settings.loss_weighting == "snr":
        weights = (1 / snr.clamp_min(1e-12)).clamp(0.3, 5.0)
        return (weights / (weights * probabilities).sum()).float()
    capped = snr.clamp_max(settings.min_snr_gamma)
    divisor = {"epsilon": snr.clamp_min(1e-12), "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    return (capped / divisor[prediction]).float()
