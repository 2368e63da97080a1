"""From a batch of the loader to what a step needs: latents, noise, conditioning, and what the adapter reads.

What the batch lacks (no cache) is computed here with the frozen parts. Nothing is drawn: the batch holds each sample's
own random numbers.

Shapes: B batch, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ipadapter_core import AdapterSpec, Given, normalised_square, nothing, read_identities

from ..base.device import moved
from ..base.frozen import Frozen
from ..data.batch import Batch
from ..data.pictures import normalised
from .engine import CONDITIONING


@dataclass(frozen=True)
class Inputs:
    """One batch on the device. x0 (clean latents) and noise: [B, C, h, w], scaled.

    time: [B]. conditioning: the base's own, by its names. given: what the adapter's projection reads, dropped pictures
    already replaced.
    """

    names: Sequence[str]
    x0: Tensor
    noise: Tensor
    time: Tensor
    conditioning: dict[str, Tensor]
    given: Given

    def __len__(self) -> int:
        return len(self.x0)

    def of_base(self) -> dict[str, Tensor]:
        """What the base's pass reads, by the names that engines know."""
        named = {f"{CONDITIONING}{name}": value for name, value in self.conditioning.items()}
        return {"x0": self.x0, "noise": self.noise, "time": self.time, **named}

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [*self.of_base().values(), *(value for value in self.given if value is not None)]


def to_inputs(batch: Batch, frozen: Frozen, spec: AdapterSpec, time: Tensor) -> Inputs:
    """Compute what is not cached, draw latents, replace dropped pictures (section 3.2.1).

    spec: of the adapter, which says what it reads. time: [B], on the CPU.
    """
    base, device = frozen.base, frozen.device
    batch = batch.to(device, non_blocking=True)
    moments, texts = batch.moments, batch.texts
    if moments is None:
        moments = base.encode_pictures(normalised(required(batch.pixels, "pixels")))
    if texts is None:
        texts = base.encode_texts(batch.captions)
    return Inputs(
        names=batch.names,
        x0=draw_latents(moments, batch.drawn, base.latent_scale),
        noise=batch.noise,
        time=moved(time, device),
        conditioning=base.conditioning(texts, batch.geometries),
        given=given_of(batch, frozen, spec),
    )


def given_of(batch: Batch, frozen: Frozen, spec: AdapterSpec) -> Given:
    """What the adapter reads of a batch's pictures and faces, "no picture" where the picture is dropped."""
    device, features, identities = frozen.device, batch.features, None
    if spec.feature:
        if features is None:
            squares = required(batch.condition, "condition").to(device)
            features = frozen.encoder(normalised_square(squares, frozen.encoder_facts), spec.feature)
        features = features.to(device).float()
    if spec.identity:
        identities = required(batch.identities, "identities").to(device).float()
        identities = read_identities(identities, spec.identity)
    given = Given(features if spec.feature else None, identities)
    if not any(batch.drop_image.tolist()):
        return given
    return given.dropped(moved(batch.drop_image, device), nothing(spec, given, frozen.zero_states))


def draw_latents(moments: Tensor, drawn: Tensor, scale: tuple[float, float]) -> Tensor:
    """Latents [B, C, h, w] from their moments [B, 2, C, h, w] by what was `drawn` for them, scaled."""
    mean, std = moments.float().unbind(1)
    factor, shift = scale
    return (mean + std * drawn - shift) * factor


def required(value: Tensor | None, name: str) -> Tensor:
    """A raw part of a batch whose cached result is not there."""
    assert value is not None, f"the batch has neither {name} nor what is computed from it"
    return value
