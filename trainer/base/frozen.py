"""The frozen parts of a training: the base and the image encoder. What they compute can be cached.

Shapes: B batch, S and F sequence and width of the image encoder's hidden states, E width of its pooled embedding.
"""

from __future__ import annotations

from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from ipadapter_core import Encoder, Feature

from ..settings.config import ModelConfig
from .encoder import ImageEncoder, encoder_facts, load_encoder
from .files import BaseFiles
from .parts import Parts
from .protocol import FrozenBase
from .unet import UNetBase


class Frozen:
    """The base and the image encoder, each part of them loaded when it is first used.

    device, dtype: where they compute, and how. Results are fp32 on `device`.
    Raises ValueError when a part is missing or of the wrong kind.
    """

    def __init__(
        self, model: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.device, self.dtype = torch.device(device), dtype
        self.parts = Parts(self.device)
        self.base: FrozenBase = UNetBase(BaseFiles(model), self.parts, dtype)  # where another kind of base is chosen
        self._zero_states: Tensor | None = None

    @property
    def encoder(self) -> ImageEncoder:
        name, architecture = self.model.encoder, self.model.encoder_architecture
        return self.parts.get("encoder", lambda: load_encoder(name, architecture).to(self.dtype))

    @cached_property
    def encoder_facts(self) -> Encoder:
        """What is known of the image encoder, without loading it."""
        return encoder_facts(self.model.encoder, self.model.encoder_architecture)

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
