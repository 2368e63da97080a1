"""The door to a base: what a training and its sampling need of a frozen base model, whatever its kind.

Shapes: B batch, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..data.geometry import Geometry
from .processor import AdapterOutput, AttentionNorms, Kind
from .sites import Sites


class FrozenBase(Protocol):
    """A frozen base on a device. Its conditioning is named tensors [B, ...], whose names are its own."""

    device: torch.device

    @property
    def sites(self) -> Sites:
        """Where image attention acts."""
        ...

    @property
    def latent_dtype(self) -> torch.dtype:
        """The number format in which latents are computed: stored in it, nothing is lost."""
        ...

    @property
    def latent_scale(self) -> tuple[float, float]:
        """Factor and shift from the autoencoder's latents to those that are made noisy: (latent - shift) * factor."""
        ...

    def scheduler_config(self) -> dict[str, Any]:
        """The noise schedule as diffusers writes it: what the objective is made of."""
        ...

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(C, h, w) of a square picture's latents."""
        ...

    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] of -1..1 to mean and deviation of their latents [B, 2, C, h, w], unscaled, fp32."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] to pixels [B, 3, H, W] of -1..1, fp32."""
        ...

    def encode_texts(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """What the captions condition on, by name, [B, ...], fp32: cached and stacked by these names."""
        ...

    def conditioning(self, texts: dict[str, Tensor], geometries: Sequence[Geometry]) -> dict[str, Tensor]:
        """All that `denoise` is conditioned on, on the device: texts, and what the base reads of picture and crop."""
        ...

    def install(self, attention: Kind, has_lora: bool, checkpoints_gradients: bool = False) -> None:
        """Give the base's layers image attention. checkpoints_gradients: activations are computed again in backward."""
        ...

    def compile(self, backend: str = "inductor") -> None:
        """Run the blocks of which the base is made by torch.compile from now on."""
        ...

    def denoise(self, noisy: Tensor, time: Tensor, conditioning: dict[str, Tensor], images: AdapterOutput) -> Tensor:
        """The base's prediction [B, C, h, w] for noisy latents at times [B] or (), with an adapter's image prompts."""
        ...

    def count_attention(self, norms: AttentionNorms | None) -> None:
        """Add what every layer attends to in `denoise` to `norms` from now on; None: no longer."""
        ...

    def forget(self) -> None:
        """Let go of what `denoise` keeps of the adapter for backward."""
        ...
