"""What an adapter is, as a frozen value. `detect` makes it from a file; everything else only reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Feature = Literal["pooled", "penultimate"]
Identity = Literal["normed", "raw"]

IDENTITY_DIM = 512  # of ArcFace


@dataclass(frozen=True)
class LinearProjection:
    """One linear layer and a LayerNorm on the pooled embedding (IP-Adapter, section 3.2.1)."""


@dataclass(frozen=True)
class ResamplerProjection:
    """Learned queries that attend to the penultimate hidden states (the fine-grained variant, section 4.4.1)."""

    width: int
    depth: int
    num_heads: int
    ff_width: int


@dataclass(frozen=True)
class MLPProjection:
    """Two linear layers and a LayerNorm on each hidden state: as many tokens as states (full-face)."""

    hidden: int


@dataclass(frozen=True)
class IdentityProjection:
    """Two linear layers and a LayerNorm on a face's identity (FaceID)."""

    hidden: int


@dataclass(frozen=True)
class IdentityResamplerProjection:
    """The identity's tokens are the queries that attend to the hidden states of the face's picture (FaceID plus)."""

    hidden: int
    resampler: ResamplerProjection


Projection = LinearProjection | ResamplerProjection | MLPProjection | IdentityProjection | IdentityResamplerProjection


@dataclass(frozen=True)
class FaceCrop:
    """The picture of a face that the image encoder sees, `size` pixels square.

    kind: "aligned" by its landmarks as for ArcFace, or the "box" in which it was found, made square.
    """

    kind: Literal["aligned", "box"]
    size: int


@dataclass(frozen=True)
class AdapterSpec:
    """Everything that shapes an adapter's computation, and all that it needs to be given.

    feature: which output of the image encoder the projection reads; None: no image encoder.
    feature_dim: its width. feature_length: how many hidden states it must have; None: any number.
    context_dim: width of the text states of the base model.
    token_dim: width of the image tokens where that differs; they then go through the base's own projection of text.
    layers: the checkpoint indices of the cross-attention layers that have K' and V', ascending.
    identity: how an ArcFace identity is read, by length one or as it is; None: no faces.
    face_crop: the picture of the face that the encoder sees; None: whatever picture there is.
    shortcut: the identity's tokens are added to the resampled ones (FaceID plus v2).
    zero_features: "no picture" is hidden states of zeros, not those of a picture of zeros.
    base: the base's name where its shapes are another's too (Kolors has SDXL's); else "".
    has_lora: the file has LoRA matrices for the base model. has_text_projection: it has the projection of text.
    """

    family: str
    feature: Feature | None
    feature_dim: int
    context_dim: int
    num_tokens: int
    layers: tuple[int, ...]
    projection: Projection
    token_dim: int | None = None
    feature_length: int | None = None
    identity: Identity | None = None
    face_crop: FaceCrop | None = None
    shortcut: bool = False
    zero_features: bool = False
    has_lora: bool = False
    has_text_projection: bool = False
    base: str = ""

    @property
    def projected_dim(self) -> int:
        """Width of what the projection gives."""
        return self.token_dim or self.context_dim
