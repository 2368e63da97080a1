"""Several image prompts as one, before any adapter reads them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ...ipadapter_core import FaceCrop, Feature
from .protocol import Prompt

METHODS = ("concatenate", "average", "weighted", "subtract")


class CombinedPrompt:
    """Image prompts as one, computed when an adapter asks for it.

    concatenate: all their pictures. average: the mean of all their pictures, one. weighted: of two, the first times
    1 - amount and the second times amount. subtract: the first less the second times amount.
    Raises ValueError for an unknown method.
    """

    def __init__(self, parts: tuple[Prompt, ...], method: str, amount: float = 0.5) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r} to combine image prompts: choose one of {', '.join(METHODS)}")
        self.parts = parts
        self.method = method
        self.amount = amount

    @property
    def digest(self) -> str:
        """Of all the parts' pictures, and of what was done with them."""
        content = (self.method, self.amount, *(part.digest for part in self.parts))
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def features(self, feature: Feature, crop: FaceCrop | None = None) -> Tensor:
        return self._combined([part.features(feature, crop) for part in self.parts], f"{feature} features")

    def zero_states(self) -> Tensor:
        """The first's: of one encoder, all are the same."""
        return self.parts[0].zero_states()

    def identities(self) -> Tensor | None:
        found = [part.identities() for part in self.parts]
        known = [identities for identities in found if identities is not None]
        if known and len(known) < len(found):
            raise ValueError(
                "one of the combined image prompts has faces' identities and another has none: "
                "make all of them with Encode Faces"
            )
        return self._combined(known, "identities") if known else None

    def _combined(self, values: list[Tensor], what: str) -> Tensor:
        shapes = {tuple(value.shape[1:]) for value in values}
        if len(shapes) > 1:
            sizes = " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
            raise ValueError(f"the combined image prompts have {what} of {sizes}: make them with the same encoder")
        if self.method == "concatenate":
            return torch.cat(values)
        if self.method == "average":
            return torch.cat(values).mean(0, keepdim=True)
        first, second = values
        if len(first) != len(second) and 1 not in (len(first), len(second)):
            raise ValueError(
                f"{self.method} takes as many pictures on both sides, or one on one side: got {len(first)} and "
                f"{len(second)}: average one side first"
            )
        share = 1 - self.amount if self.method == "weighted" else 1
        return first * share + second * (self.amount if self.method == "weighted" else -self.amount)
