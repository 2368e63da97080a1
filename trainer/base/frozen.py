"""What the frozen parts compute: latent moments, text states, image features. All of it can be cached.

Shapes: B batch, C latent channels, h and w latent height and width, T text tokens, D their width, P pooled
text's width, S and F sequence and width of the image encoder's hidden states, E width of its pooled embedding.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ipadapter_core import Encoder, Feature

from ..settings.config import ModelConfig
from .encoder import ImageEncoder, encoder_facts, load_encoder
from .files import BaseFiles


class TextStates(NamedTuple):
    """states: [B, T, D] for the cross-attention. pooled: [B, P] for SDXL's embedding, None elsewhere."""

    states: Tensor
    pooled: Tensor | None = None


class Frozen:
    """The frozen parts of a training, each loaded when it is first used, so that cached parts are never loaded.

    device, dtype: where they compute, and how. Results are fp32 on `device`.
    Raises ValueError when a part is missing or of the wrong kind.
    """

    def __init__(
        self, model: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        self.dtype = dtype
        self.files = BaseFiles(model)
        self._zero_states: Tensor | None = None

    @cached_property
    def unet(self) -> UNet2DConditionModel:
        return self._placed(self.files.load_unet(self.dtype))

    @cached_property
    def vae(self) -> Any:
        # SDXL's own autoencoder overflows in half precision and says so
        dtype = torch.float32 if self.files.vae_config().get("force_upcast", False) else self.dtype
        return self._placed(self.files.load_vae(dtype))

    @cached_property
    def text_encoders(self) -> list[Any]:
        return [self._placed(encoder) for encoder in self.files.load_text_encoders(self.dtype)]

    @cached_property
    def tokenizers(self) -> list[Any]:
        return self.files.load_tokenizers()

    @cached_property
    def scheduler(self) -> DDPMScheduler:
        return self.files.load_scheduler()

    @cached_property
    def encoder(self) -> ImageEncoder:
        return self._placed(load_encoder(self.model.encoder, self.model.encoder_architecture).to(self.dtype))

    @cached_property
    def encoder_facts(self) -> Encoder:
        """What is known of the image encoder, without loading it."""
        return encoder_facts(self.model.encoder, self.model.encoder_architecture)

    @property
    def has_size_conditioning(self) -> bool:
        """Whether the base is told sizes and crop (SDXL)."""
        return self.files.unet_config().get("addition_embed_type") == "text_time"

    @torch.no_grad()
    def latent_moments(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] of -1..1 to mean and standard deviation of their latents [B, 2, C, h, w], unscaled.

        Autoencoders without a distribution (Tiny, DC) give a deviation of zero.
        """
        encoded = self.vae.encode(pixels.to(self.device, self.vae.dtype))
        if hasattr(encoded, "latent_dist"):
            mean, std = encoded.latent_dist.mean, encoded.latent_dist.std
        else:
            mean = encoded.latents if hasattr(encoded, "latents") else encoded.latent
            std = torch.zeros_like(mean)
        return torch.stack([mean, std], dim=1).float()

    @torch.no_grad()
    def text_states(self, captions: list[str]) -> TextStates:
        """Captions to text states: SD's last hidden states, or SDXL's two penultimate ones joined, and a pooled one."""
        is_pair = len(self.text_encoders) == 2
        states, pooled = [], None
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
            tokens = tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            output = encoder(tokens.input_ids.to(self.device), output_hidden_states=is_pair)
            states.append(output.hidden_states[-2] if is_pair else output.last_hidden_state)
            pooled = output.text_embeds if is_pair and hasattr(output, "text_embeds") else pooled
        return TextStates(torch.cat(states, dim=-1).float(), None if pooled is None else pooled.float())

    def image_features(self, pictures: list[Image.Image], feature: Feature) -> Tensor:
        """Pictures to the encoder's pooled embedding [B, E] or penultimate hidden states [B, S, F]."""
        return self.encoder(self.encoder.pixels(pictures).to(self.device), feature).float()

    def zero_states(self) -> Tensor:
        """The hidden states [1, S, F] of a picture of zeros, which stand for a dropped picture."""
        if self._zero_states is None:
            zeros = self.encoder.zero_pixels().to(self.device)
            self._zero_states = self.encoder(zeros, "penultimate").float()
        return self._zero_states

    def zero_states_are(self, values: Tensor) -> None:
        """Take what `zero_states` gives from a cache: [1, S, F], so that the encoder need not be loaded."""
        self._zero_states = values.to(self.device).float()

    def release(self, *parts: str) -> None:
        """Forget loaded parts ("vae", "encoder", "text_encoders"); they are loaded again when used."""
        for part in parts:
            self.__dict__.pop(part, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def loaded(self) -> set[str]:
        """The parts that are in memory now."""
        return {"vae", "encoder", "text_encoders"} & self.__dict__.keys()

    def _placed(self, module: Any) -> Any:
        return module.to(self.device).eval().requires_grad_(False)


def latent_scale(files: BaseFiles) -> tuple[float, float]:
    """Factor and shift from the autoencoder's latents to the UNet's: z = (latent - shift) * factor."""
    config = files.vae_config()
    return float(config.get("scaling_factor") or 1.0), float(config.get("shift_factor") or 0.0)
