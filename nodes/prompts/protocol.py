"""What an adapter asks of an image prompt, and what it gets.

An image prompt is anything with the three methods of `Prompt`: pictures (`ImagePrompt`), faces (`FacePrompt`), one that
was saved, or several combined. All of them compute what they give when it is asked for, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...ipadapter_core import AdapterSpec, FaceCrop, encoder_of_width
from ...ipadapter_core.method.spec import Feature

NORM = 1e-3  # identities are taken as normed when every length is this close to one


class Prompt(Protocol):
    """An image prompt of P pictures or faces."""

    @property
    def digest(self) -> str:
        """SHA-256 of the pictures, or of what stands for them."""

    def features(self, feature: Feature, crop: FaceCrop | None = None) -> Tensor:
        """Pooled [P, F] or penultimate [P, S, F] features; with `crop`, those of the faces cut in that way.

        Raises ValueError when there is no encoder, or no picture to cut the faces from.
        """

    def unconditional(self, feature: Feature) -> Tensor:
        """The same for "no picture": a zero embedding [1, F], or the hidden states of a picture of zeros [1, S, F]."""

    def identities(self) -> Tensor | None:
        """ArcFace identities [P, 512] of the faces, raw as the face model gives them; None where there are no faces."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a projection reads, for P pictures or faces.

    features: [P, F] or [P, S, F], or None for an adapter without an encoder. identities: [P, 512] or None.
    """

    features: Tensor | None
    identities: Tensor | None

    @property
    def num_pictures(self) -> int:
        first = self.features if self.features is not None else self.identities
        assert first is not None
        return len(first)

    def to(self, device: torch.device) -> Inputs:
        return Inputs(*(x if x is None else x.to(device) for x in (self.features, self.identities)))

    def mean(self) -> Inputs:
        """One picture that is the mean of all."""
        return Inputs(*(x if x is None else x.mean(0, keepdim=True) for x in (self.features, self.identities)))


def inputs_of(prompt: Prompt, spec: AdapterSpec, name: str) -> tuple[Inputs, Inputs]:
    """What the adapter `name` reads of an image prompt: for the conditional role, and for "no picture" (P = 1).

    Raises ValueError when the image prompt has not what the adapter needs.
    """
    identities = None if spec.identity is None else _identities(prompt, spec, name)
    if spec.feature is None:
        features = nothing = None
    else:
        features = prompt.features(spec.feature, spec.face_crop)
        check_encoder(spec, name, features)
        nothing = torch.zeros_like(features[:1]) if spec.zero_features else prompt.unconditional(spec.feature)
    nobody = None if identities is None else torch.zeros_like(identities[:1])
    return Inputs(features, identities), Inputs(nothing, nobody)


def _identities(prompt: Prompt, spec: AdapterSpec, name: str) -> Tensor:
    raw = prompt.identities()
    if raw is None:
        raise ValueError(
            f"the adapter {name} ({spec.family}) reads faces' identities, and this image prompt has none: "
            "make it with Encode Faces instead of Encode Image Prompt"
        )
    raw = raw.float()
    lengths = raw.norm(dim=-1, keepdim=True)
    if spec.identity == "normed":
        return raw / lengths.clamp(min=torch.finfo(raw.dtype).tiny)
    if ((lengths - 1).abs() < NORM).all():
        raise ValueError(
            f"the adapter {name} ({spec.family}) reads identities as the face model gives them, and these were cut "
            "to length one: connect the face model's own (insightface calls them embedding, not normed_embedding)"
        )
    return raw


def check_encoder(spec: AdapterSpec, name: str, features: Tensor) -> None:
    """Hold the features to the adapter's shapes. Raises ValueError that names the encoder that fits."""
    assert spec.feature is not None
    width = features.shape[-1]
    if width != spec.feature_dim:
        raise ValueError(
            f"the adapter {name} expects {spec.feature_dim}-wide {spec.feature} image features, got {width} "
            f"(from {encoder_of_width(spec.feature, width)}): load {spec.encoder} with Load Image Encoder"
        )
    if spec.feature_length not in (None, features.shape[1]):
        raise ValueError(
            f"the adapter {name} expects {spec.feature_length} hidden states of a picture, got {features.shape[1]} "
            f"(an encoder for another size): load {spec.encoder} with Load Image Encoder"
        )
