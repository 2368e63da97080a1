"""One picture of an image prompt, as an image prompt."""

from __future__ import annotations

import hashlib

from torch import Tensor

from ...ipadapter_core import FaceCrop, Feature
from .protocol import Prompt


class PickedPrompt:
    """Picture `number` of an image prompt of `count` pictures, or its face; what they share is computed once for all.

    What it gives raises ValueError when there are not as many pictures.
    """

    def __init__(self, prompt: Prompt, number: int, count: int) -> None:
        self.prompt = prompt
        self.number = number
        self.count = count

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr((self.number, self.prompt.digest)).encode()).hexdigest()

    def features(self, feature: Feature, crop: FaceCrop | None = None) -> Tensor:
        return self._picked(self.prompt.features(feature, crop))

    def zero_states(self) -> Tensor:
        return self.prompt.zero_states()

    def identities(self) -> Tensor | None:
        identities = self.prompt.identities()
        return None if identities is None else self._picked(identities)

    def _picked(self, values: Tensor) -> Tensor:
        if len(values) != self.count:
            raise ValueError(
                f"the image prompt has {len(values)} pictures, and there are {self.count} masks: connect one mask for "
                "each picture, as Encode Image Tiles gives them"
            )
        return values[self.number : self.number + 1]
