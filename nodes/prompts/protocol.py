"""What an adapter asks of an image prompt, and what it gets.

An image prompt is anything with the three methods of `Prompt`: pictures (`ImagePrompt`), faces (`FacePrompt`), one that
was saved, or several combined. All of them compute what they give when it is asked for, once.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ...ipadapter_core import (
    AdapterSpec,
    FaceCrop,
    Feature,
    Given,
    encoder_name,
    encoder_words,
    nothing,
    read_identities,
)
from ...ipadapter_core.method.spec import IDENTITY_DIM

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

    def zero_states(self) -> Tensor:
        """The hidden states [1, S, F] of a picture of zeros, which stand for "no picture"."""

    def identities(self) -> Tensor | None:
        """ArcFace identities [P, 512] of the faces, raw as the face model gives them; None where there are no faces."""


def given_of(prompt: Prompt, spec: AdapterSpec, name: str) -> tuple[Given, Given]:
    """What the adapter `name` reads of an image prompt: for the conditional role, and for "no picture" (one row).

    Raises ValueError when the image prompt lacks what the adapter needs.
    """
    identities = None if spec.identity is None else _identities(prompt, spec, name)
    features = None
    if spec.feature is not None:
        features = prompt.features(spec.feature, spec.face_crop)
        check_encoder(spec, name, features)
    given = Given(features, identities)
    return given, nothing(spec, given, prompt.zero_states)


def negative_of(prompt: Prompt, spec: AdapterSpec, name: str) -> Given:
    """What the adapter `name` reads of an image prompt that stands in place of "no picture".

    A picture without faces has identities of zeros, where the adapter reads more than identities.
    Raises ValueError when the image prompt lacks what the adapter needs.
    """
    if spec.identity is None or spec.feature is None or prompt.identities() is not None:
        return given_of(prompt, spec, name)[0]
    features = prompt.features(spec.feature)
    check_encoder(spec, name, features)
    return Given(features, features.new_zeros(len(features), IDENTITY_DIM))


def _identities(prompt: Prompt, spec: AdapterSpec, name: str) -> Tensor:
    raw = prompt.identities()
    if raw is None:
        raise ValueError(
            f"the adapter {name} ({spec.family}) reads faces' identities, and this image prompt has none: "
            "make it with Encode Faces instead of Encode Image Prompt"
        )
    raw = raw.float()
    if spec.identity == "raw" and ((raw.norm(dim=-1) - 1).abs() < NORM).all():
        raise ValueError(
            f"the adapter {name} ({spec.family}) reads identities as the face model gives them, and these were cut "
            "to length one: connect the face model's own (insightface calls them embedding, not normed_embedding)"
        )
    assert spec.identity is not None
    return read_identities(raw, spec.identity)


def check_encoder(spec: AdapterSpec, name: str, features: Tensor) -> None:
    """Hold the features to the adapter's shapes. Raises ValueError that names the encoder that fits."""
    assert spec.feature is not None
    width = features.shape[-1]
    if width != spec.feature_dim:
        raise ValueError(
            f"{name} needs {encoder_name(spec)}: it expects {spec.feature_dim}-wide {spec.feature} image features, got "
            f"{width} (from {encoder_words(spec.feature, width)}): load {encoder_name(spec)} with Load Image Encoder, "
            "where auto finds it once the adapter is connected"
        )
    if spec.feature_length not in (None, features.shape[1]):
        raise ValueError(
            f"the adapter {name} expects {spec.feature_length} hidden states of a picture, got {features.shape[1]} "
            f"(seen at another size): load {encoder_name(spec)} with Load Image Encoder, and leave size at 0"
        )
