"""Pictures from the frozen base and an adapter: DDIM with classifier-free guidance, as in the paper.

Shapes: B batch, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from ipadapter_core import AdapterSpec, Given, IPAdapter, nothing, read_identities

from ..base.frozen import Frozen, latent_scale
from ..data.batch import Reference
from ..step.adapter import adapt
from ..step.diffusion import Diffusion


@dataclass(frozen=True)
class Sampling:
    """The paper's inference by default; image only is an empty prompt and weight 1."""

    steps: int = 50
    guidance: float = 7.5
    weight: float = 1.0
    prompt: str = ""
    negative: str = ""
    seed: int = 0


def given_of(references: Sequence[Reference], spec: AdapterSpec, frozen: Frozen) -> Given:
    """What the adapter reads of references."""
    features = frozen.image_features([one.picture for one in references], spec.feature) if spec.feature else None
    if spec.identity is None:
        return Given(features)
    faces = [one.identity for one in references if one.identity is not None]
    assert len(faces) == len(references)
    return Given(features, read_identities(torch.stack(faces).to(frozen.device), spec.identity))


def with_nothing(given: Given, spec: AdapterSpec, frozen: Frozen) -> Given:
    """ "No picture" as often as there are references, then the references: [2 * B, ...]."""
    return nothing(spec, given, frozen.zero_states).expanded(given.rows).joined(given)


@torch.no_grad()
def sample(
    diffusion: Diffusion, adapter: IPAdapter, given: Given, settings: Sampling, resolution: int
) -> list[Image.Image]:
    """One picture of resolution x resolution for each of the references. Its LoRA acts at strength 1.

    The noise of row i is seeded with settings.seed + i, on the CPU, so that it is the same on every device.
    """
    frozen, count = diffusion.frozen, given.rows
    side = resolution // latent_cell(frozen.files.vae_config())
    channels = frozen.unet.config.in_channels
    noise = [
        torch.randn(channels, side, side, generator=torch.Generator().manual_seed(settings.seed + row))
        for row in range(count)
    ]
    keys_values, lora = adapt(adapter, with_nothing(given, adapter.spec, frozen))
    text = frozen.text_states([settings.negative] * count + [settings.prompt] * count)
    sizes = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]], device=frozen.device).repeat(
        2 * count, 1
    )
    scheduler = ddim(diffusion.scheduler.config)
    scheduler.set_timesteps(settings.steps, device=frozen.device)
    latents = torch.stack(noise).to(frozen.device) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        output = diffusion.predict(both, timestep, text, sizes, keys_values, settings.weight, lora).float()
        without, wanted = output.chunk(2)
        latents = scheduler.step(without + settings.guidance * (wanted - without), timestep, latents).prev_sample
    diffusion.prompts.clear()
    return [picture for row in latents.split(1) for picture in to_pictures(decode(diffusion, row))]


def decode(diffusion: Diffusion, latents: Tensor) -> Tensor:
    """Scaled latents [B, C, h, w] to pixels [B, 3, H, W] of -1..1."""
    frozen = diffusion.frozen
    factor, shift = latent_scale(frozen.files)
    return frozen.vae.decode((latents / factor + shift).to(frozen.vae.dtype)).sample.float()


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Pixels [B, 3, H, W] of -1..1 to pictures."""
    values = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in values]


def ddim(config: Any) -> DDIMScheduler:
    """DDIM on the base's own noise schedule, with the settings of the paper's inference."""
    return DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def latent_cell(vae_config: dict[str, Any]) -> int:
    """Pixels along the side of one latent position."""
    levels = vae_config.get("block_out_channels") or vae_config["encoder_block_out_channels"]
    return 2 ** (len(levels) - 1)
