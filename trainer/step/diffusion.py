"""One batch through the frozen UNet with the adapter's K' and V': the loss of every sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ipadapter_core import Lora

from ..base.attention import Adaptation, ImagePrompts, install
from ..base.frozen import Frozen, TextStates
from ..settings.config import Config
from ..settings.families import lora_rank
from .inputs import Inputs
from .loss import loss_weights, sample_losses, target

Adapt = Callable[[Inputs], Adaptation]


class Diffusion:
    """The frozen UNet with the adapter's attention, and the loss.

    adapt: from a batch to K', V' of all layers and the LoRA, the trained adapter.
    """

    def __init__(self, frozen: Frozen, config: Config) -> None:
        self.frozen = frozen
        self.scheduler = frozen.scheduler
        self.weights = loss_weights(config.optimiser, self.scheduler)
        self.prompts: ImagePrompts = install(
            frozen.unet,
            config.adapter.attention,
            has_lora=lora_rank(config.adapter.family, config.adapter.lora_rank) > 0,
        )
        if config.run.gradient_checkpointing:
            frozen.unet.enable_gradient_checkpointing()
            frozen.unet.train()  # diffusers checkpoints in training mode only; the UNet has no dropout in effect

    def losses(self, inputs: Inputs, adapt: Adapt) -> tuple[Tensor, Tensor]:
        """Weighted and plain loss of each sample, [B] and [B]; backward goes through the weighted one."""
        noisy = self.scheduler.add_noise(inputs.latents, inputs.noise, inputs.timesteps)
        wanted = target(self.scheduler, inputs.latents, inputs.noise, inputs.timesteps)
        keys_values, lora = adapt(inputs)
        prediction = self.predict(noisy, inputs.timesteps, inputs.text, inputs.sizes, keys_values, lora=lora)
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
        lora: Lora | None = None,
    ) -> Tensor:
        """The UNet's output [B, C, h, w] for noisy latents, with image prompts of this weight."""
        unet, dtype = self.frozen.unet, self.frozen.dtype
        self.prompts.set(keys_values, scale, lora)
        added = None
        if self.frozen.has_size_conditioning:
            assert text.pooled is not None
            added = {"text_embeds": text.pooled.to(dtype), "time_ids": sizes.float()}
        return unet(noisy.to(dtype), timesteps, text.states.to(dtype), added_cond_kwargs=added).sample

    @torch.no_grad()
    def plain_losses(self, inputs: Inputs, adapt: Adapt) -> Tensor:
        """The unweighted loss of each sample without gradients, [B]: for validation."""
        return self.losses(inputs, adapt)[1]
