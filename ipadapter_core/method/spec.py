"""What an adapter is, as a frozen value. `detect` makes it from a file; everything else only reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Feature = Literal["pooled", "penultimate"]
Identity = Literal["normed", "raw"]

IDENTITY_DIM = 512  # of ArcFace

# Widths of the image encoders that adapters were published for: (pooled embedding, hidden states).
ENCODERS = {
    "CLIP ViT-H/14": (1024, 1280),
    "CLIP ViT-bigG/14": (1280, 1664),
    "CLIP ViT-L/14": (768, 1024),
}
KOLORS = "Kolors"
KOLORS_FEATURES = 577  # hidden states of CLIP ViT-L/14 at 336 px: 24 x 24 patches and the class


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

    @property
    def projected_dim(self) -> int:
        """Width of what the projection gives."""
        return self.token_dim or self.context_dim

    @property
    def base(self) -> str:
        """The base model that the shapes belong to, for people."""
        return KOLORS if self.family.startswith(KOLORS) else self.base_of(self.context_dim, len(self.layers))

    @staticmethod
    def base_of(context_dim: int, num_layers: int) -> str:
        """Name the base with such text states and cross-attention layers; say the numbers where they are nobody's."""
        known = {(768, 16): "SD1.5", (1024, 16): "SD2", (2048, 70): "SDXL"}
        unknown = f"a model with {num_layers} cross-attention layers and {context_dim}-wide text"
        return known.get((context_dim, num_layers), unknown)

    @property
    def encoder(self) -> str:
        """The image encoder whose features fit, for people."""
        if self.feature is None:
            return "no image encoder"
        return encoder_of_width(self.feature, self.feature_dim, self.feature_length)


def encoder_of_width(feature: Feature, width: int, length: int | None = None) -> str:
    """Name the published encoder whose `feature` is `width` wide; say the width where there is none."""
    position = 0 if feature == "pooled" else 1
    names = [name for name, widths in ENCODERS.items() if widths[position] == width]
    if not names:
        return f"an encoder with {width}-wide {feature} features"
    return f"{names[0]}-336" if length == KOLORS_FEATURES else names[0]
