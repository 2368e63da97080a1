"""What an adapter is, as a frozen value. `detect` makes it from a file; everything else only reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Feature = Literal["pooled", "penultimate"]

# Widths of the image encoders that adapters were published for: (pooled embedding, hidden states).
ENCODERS = {
    "CLIP ViT-H/14": (1024, 1280),
    "CLIP ViT-bigG/14": (1280, 1664),
    "CLIP ViT-L/14": (768, 1024),
}


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
class AdapterSpec:
    """Everything that shapes an adapter's computation.

    feature: which output of the image encoder the projection reads.
    feature_dim: its width. context_dim: width of the text states of the base model, and of the image tokens.
    layers: the checkpoint indices of the cross-attention layers that have K' and V', ascending.
    """

    family: str
    feature: Feature
    feature_dim: int
    context_dim: int
    num_tokens: int
    layers: tuple[int, ...]
    projection: LinearProjection | ResamplerProjection

    @property
    def base(self) -> str:
        """The base model that the shapes belong to, for people."""
        return self.base_of(self.context_dim, len(self.layers))

    @staticmethod
    def base_of(context_dim: int, num_layers: int) -> str:
        """Name the base with such text states and cross-attention layers; say the numbers where they are nobody's."""
        known = {(768, 16): "SD1.5", (1024, 16): "SD2", (2048, 70): "SDXL"}
        unknown = f"a model with {num_layers} cross-attention layers and {context_dim}-wide text"
        return known.get((context_dim, num_layers), unknown)

    @property
    def encoder(self) -> str:
        """The image encoder whose features have this width, for people."""
        return encoder_of_width(self.feature, self.feature_dim)


def encoder_of_width(feature: Feature, width: int) -> str:
    """Name the published encoder whose `feature` is `width` wide; say the width where there is none."""
    position = 0 if feature == "pooled" else 1
    names = [name for name, widths in ENCODERS.items() if widths[position] == width]
    return names[0] if names else f"an encoder with {width}-wide {feature} features"
