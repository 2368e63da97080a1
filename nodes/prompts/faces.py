"""Faces as an image prompt: their identities, and their pictures as an encoder sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...ipadapter_core import FaceCrop
from ...ipadapter_core.method.picture import encoder_views
from ...ipadapter_core.method.spec import IDENTITY_DIM, Feature
from ..encoders import encode_zeros
from .pictures import digest_of, encoded


class FacePrompt:
    """P faces. Their pictures are cut and encoded once for each crop, when an adapter asks for them.

    identities: [P, 512], raw. crops: cuts the pictures [P, size, size, 3] of 0..1 of the faces; None where only the
    identities are known. encoder: a CLIP_VISION, or None where no adapter that needs one is used.
    Raises ValueError when they are not ArcFace's identities.
    """

    def __init__(
        self, identities: Tensor, crops: Callable[[FaceCrop], Tensor] | None = None, encoder: Any | None = None
    ) -> None:
        if identities.ndim != 2 or identities.shape[1] != IDENTITY_DIM or not len(identities):
            raise ValueError(
                f"identities are {tuple(identities.shape)}, expected [faces, {IDENTITY_DIM}]: connect ArcFace's"
            )
        self.encoder = encoder
        self.crops = crops
        self._identities = identities
        self._features: dict[FaceCrop, dict[Feature, Tensor]] = {}
        self._zero_states: Tensor | None = None

    @property
    def digest(self) -> str:
        """Of the faces' identities, and of their pictures where there are any."""
        pixels = torch.zeros(0) if self.crops is None else self.crops(FaceCrop("box", 224))
        return digest_of(torch.cat([self._identities.flatten(), pixels.flatten()]))

    def identities(self) -> Tensor:
        return self._identities

    def pixels(self, crop: FaceCrop) -> Tensor:
        """The faces as the encoder sees them: [P, S, S, 3], S its own size."""
        if self.crops is None:
            raise ValueError(
                "this adapter reads the faces' pictures as well, and this image prompt has identities only: "
                "give Encode Faces the pictures"
            )
        return encoder_views(self.crops(crop), self._encoder().image_size)

    def features(self, feature: Feature, crop: FaceCrop | None = None) -> Tensor:
        """Features of the faces' pictures; an adapter that asks for no crop gets the box, as plus-face is used."""
        crop = crop or FaceCrop("box", self._encoder().image_size)
        if crop not in self._features:
            self._features[crop] = encoded(self._encoder(), self.pixels(crop))
        return self._features[crop][feature]

    def zero_states(self) -> Tensor:
        if self._zero_states is None:
            self._zero_states = encode_zeros(self._encoder()).float()
        return self._zero_states

    def _encoder(self) -> Any:
        if self.encoder is None:
            raise ValueError(
                "this adapter reads the faces' pictures through an image encoder, and there is none: "
                "connect Load Image Encoder to Encode Faces"
            )
        return self.encoder
