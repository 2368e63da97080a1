"""From a batch of the loader to what the UNet is given: latents, noise, timesteps, text states, image features.

What the batch lacks (no cache) is computed here with the frozen parts. All randomness comes from each sample's own
generator, drawn on the CPU in a fixed order: the latent's, the noise, the noise's offset.

Shapes: B batch, C latent channels, h and w latent height and width, S encoder's size or sequence, F its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ipadapter_core import AdapterSpec, Given, nothing, read_identities

from ..base.frozen import Frozen, TextStates, latent_scale
from ..settings.config import OptimiserConfig


class Batch(Protocol):
    """What the loader gives for one process and one batch. Of a raw part and its cached result one is there.

    names: for messages. pixels: [B, 3, H, W] of -1..1. moments: [B, 2, C, h, w] as `Frozen.latent_moments` gives.
    captions: "" where the text is dropped. text: their states, the empty caption's where dropped.
    condition: [B, 3, S, S], normalised for the encoder. features: [B, E] or [B, S, F], as if no picture were dropped.
    drop_image: [B], where the picture is dropped. timesteps: [B]. generators: one for each sample.
    sizes: [B, 6], SDXL's original height and width, crop's top and left, target height and width.
    identities: [B, 512], raw, where the data has them.
    """

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def pixels(self) -> Tensor | None: ...
    @property
    def moments(self) -> Tensor | None: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def text(self) -> TextStates | None: ...
    @property
    def condition(self) -> Tensor | None: ...
    @property
    def features(self) -> Tensor | None: ...
    @property
    def drop_image(self) -> Tensor: ...
    @property
    def timesteps(self) -> Tensor: ...
    @property
    def generators(self) -> Sequence[torch.Generator]: ...
    @property
    def sizes(self) -> Tensor: ...
    @property
    def identities(self) -> Tensor | None: ...


@dataclass(frozen=True)
class Inputs:
    """One batch on the device. latents and noise: [B, C, h, w], scaled.

    given: what the adapter's projection reads, dropped pictures already replaced.
    """

    names: Sequence[str]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    text: TextStates
    given: Given
    sizes: Tensor

    def __len__(self) -> int:
        return len(self.latents)


def to_inputs(batch: Batch, frozen: Frozen, spec: AdapterSpec, settings: OptimiserConfig) -> Inputs:
    """Compute what is not cached, draw latents and noise, replace dropped pictures (section 3.2.1).

    spec: of the adapter, which says what it reads.
    """
    moments = batch.moments if batch.moments is not None else frozen.latent_moments(_there(batch.pixels, "pixels"))
    text = batch.text if batch.text is not None else frozen.text_states(list(batch.captions))
    device = frozen.device
    latents, noise = draw_latents(moments, batch.generators, latent_scale(frozen.files), settings.noise_offset)
    return Inputs(
        names=batch.names,
        latents=latents.to(device),
        noise=noise.to(device),
        timesteps=batch.timesteps.to(device),
        text=TextStates(text.states.to(device), None if text.pooled is None else text.pooled.to(device)),
        given=given_of(batch, frozen, spec),
        sizes=batch.sizes.to(device),
    )


def given_of(batch: Batch, frozen: Frozen, spec: AdapterSpec) -> Given:
    """What the adapter reads of a batch's pictures and faces, "no picture" where the picture is dropped."""
    features, identities = batch.features, None
    if spec.feature:
        if features is None:
            features = frozen.encoder(_there(batch.condition, "condition").to(frozen.device), spec.feature)
        features = features.to(frozen.device).float()
    if spec.identity:
        identities = _there(batch.identities, "identities").to(frozen.device).float()
        identities = read_identities(identities, spec.identity)
    given = Given(features if spec.feature else None, identities)
    if not batch.drop_image.any():
        return given
    return given.dropped(batch.drop_image.to(frozen.device), nothing(spec, given, frozen.zero_states))


def draw_latents(
    moments: Tensor, generators: Sequence[torch.Generator], scale: tuple[float, float], noise_offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Latents drawn from their moments [B, 2, C, h, w] and scaled, and their noise; both [B, C, h, w] on the CPU."""
    mean, std = moments.float().cpu().unbind(1)
    factor, shift = scale
    drawn = torch.stack([torch.randn(mean.shape[1:], generator=generator) for generator in generators])
    noise = torch.stack([torch.randn(mean.shape[1:], generator=generator) for generator in generators])
    if noise_offset:
        offsets = [torch.randn(mean.shape[1], 1, 1, generator=generator) for generator in generators]
        noise = noise + noise_offset * torch.stack(offsets)
    return (mean + std * drawn - shift) * factor, noise


def _there(value: Tensor | None, name: str) -> Tensor:
    assert value is not None, f"the batch has neither {name} nor what is computed from it"
    return value
