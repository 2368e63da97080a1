"""Pictures from the frozen base and an adapter, with classifier-free guidance (DDPM's bases: by DDIM, as in the paper).

Shapes: B batch, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ipadapter_core import AdapterSpec, Given, IPAdapter, nothing, read_identities

from ..base.frozen import Frozen
from ..base.processor import AdapterOutput
from ..base.protocol import FrozenBase
from ..data.geometry import Geometry
from ..data.record import Reference
from ..step.adapter import adapter_output
from ..step.objective import Objective


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
    frozen: Frozen, objective: Objective, adapter: IPAdapter, given: Given, settings: Sampling, resolution: int
) -> list[Image.Image]:
    """One picture of resolution x resolution for each reference. FaceID's LoRA acts at strength 1, as in training.

    The noise of row i is seeded with settings.seed + i, on the CPU, so that it is the same on every device.
    The base has been given image attention by `install`.
    """
    base, count = frozen.base, given.rows
    shape = base.latent_shape(resolution)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(settings.seed + row)) for row in range(count)]
    images = adapter_output(adapter, with_nothing(given, adapter.spec, frozen)).weighted(settings.weight)
    texts = base.encode_texts([settings.negative] * count + [settings.prompt] * count)
    x = denoise(base, objective, torch.stack(noise), texts, images, settings, resolution)
    return [picture for row in x.chunk(count) for picture in to_pictures(base.decode_latents(row))]


@torch.no_grad()
def denoise(
    base: FrozenBase,
    objective: Objective,
    noise: Tensor,
    texts: dict[str, Tensor],
    images: AdapterOutput,
    settings: Sampling,
    resolution: int,
) -> Tensor:
    """Noise [B, C, h, w] to scaled latents, with classifier-free guidance. Of `settings`, steps and guidance count.

    texts, images: [2 * B, ...], first what is without text and picture, then what is wanted.
    """
    side = (resolution, resolution)
    conditioning = base.conditioning(texts, [Geometry(side, (0, 0), side)] * (2 * len(noise)))
    sampler, x = objective.sampler(), noise.to(base.device)
    sampler.set_timesteps(settings.steps, device=base.device)
    for t in sampler.timesteps:
        without, wanted = base.denoise(torch.cat([x, x]), t, conditioning, images).float().chunk(2)
        x = sampler.step(without + settings.guidance * (wanted - without), t, x).prev_sample
    base.forget()
    return x


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Pixels [B, 3, H, W] of -1..1 to pictures."""
    values = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in values]
