"""One batch through the frozen UNet with the adapter's K' and V': the loss of every sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .attention import ImagePrompts, install
from .config import Config
from .frozen import Frozen, TextStates
from .inputs import Inputs
from .loss import loss_weights, sample_losses, target

KeysValues = Callable[[Tensor], dict[int, tuple[Tensor, Tensor]]]


class Diffusion:
    """The frozen UNet with the adapter's attention, and the loss.

    keys_values: from image features to K', V' of all layers, the trained adapter.
    """

    def __init__(self, frozen: Frozen, config: Config) -> None:
        self.frozen = frozen
        self.scheduler = frozen.scheduler
        self.weights = loss_weights(config.optimiser, self.scheduler)
        self.prompts: ImagePrompts = install(frozen.unet, config.adapter.attention)
        if config.run.gradient_checkpointing:
            frozen.unet.enable_gradient_checkpointing()
            frozen.unet.train()  # diffusers checkpoints in training mode only; the UNet has no dropout in effect

    def losses(self, inputs: Inputs, keys_values: KeysValues) -> tuple[Tensor, Tensor]:
        """Weighted and plain loss of each sample, [B] and [B]; backward goes through the weighted one."""
        noisy = self.scheduler.add_noise(inputs.latents, inputs.noise, inputs.timesteps)
        wanted = target(self.scheduler, inputs.latents, inputs.noise, inputs.timesteps)
        prediction = self.predict(noisy, inputs.timesteps, inputs.text, inputs.sizes, keys_values(inputs.features))
        plain = sample_losses(prediction, wanted)
        return plain * self.weights.to(plain.device)[inputs.timesteps], plain.detach()

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextStates,
        sizes: Tensor,
        keys_values: dict[int, tuple[Tensor, Tensor]],
        scale: float = 1.0,
    ) -> Tensor:
        """The UNet's output [B, C, h, w] for noisy latents, with image prompts of this weight."""
        unet, dtype = self.frozen.unet, self.frozen.dtype
        self.prompts.set(keys_values, scale)
        added = None
        if self.frozen.has_size_conditioning:
            assert text.pooled is not None
            added = {"text_embeds": text.pooled.to(dtype), "time_ids": sizes.float()}
        return unet(noisy.to(dtype), timesteps, text.states.to(dtype), added_cond_kwargs=added).sample

    @torch.no_grad()
    def plain_losses(self, inputs: Inputs, keys_values: KeysValues) -> Tensor:
        """The unweighted loss of each sample without gradients, [B]: for validation."""
        return self.losses(inputs, keys_values)[1]
