"""An image prompt with all settings of Apply, and its K' and V'.

Shapes: P pictures or faces, T image tokens, C width that K' and V' read, D width of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import comfy.model_management
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..ipadapter_core import Given, ImageKV, Influence
from .layout import KeysValues, Role
from .models import Adapter

CONCATENATE, AVERAGE, ONE_FOR_EACH = COMBINE = ("concatenate", "average", "one for each latent")


@dataclass(frozen=True, eq=False)
class Reference:
    """An image prompt on a model.

    inputs, unconditional: what the adapter's projection reads, of P pictures and of "no picture".
    layer_weights: index of a site to weight, sites that do nothing left out. combine: one of COMBINE.
    shortcut_scale: of FaceID plus v2. text_projection: the base's own, for adapters whose tokens go through it.
    """

    adapter: Adapter
    inputs: Given
    unconditional: Given
    influence: Influence
    layer_weights: Mapping[int, float]
    combine: str = CONCATENATE
    shortcut_scale: float = 1.0
    text_projection: torch.nn.Linear | None = None

    def image_tokens(self, inputs: Given) -> Tensor:
        """Image tokens [P, T, C] of these inputs."""
        tokens = self.adapter.model.image_tokens(inputs, self.shortcut_scale)
        if self.text_projection is None:
            return tokens
        weight, bias = (value.to(tokens) for value in (self.text_projection.weight, self.text_projection.bias))
        return F.linear(tokens, weight, bias)

    def weight_of(self, index: int, role: Role) -> float:
        """The weight of a site in predictions of this role."""
        conditional, unconditional = self.influence.roles
        return self.layer_weights[index] * (conditional if role is Role.CONDITIONAL else unconditional)


class Source(Protocol):
    """Where a run gets K' and V' of a reference."""

    is_constant: bool  # the same for every step, so that they are asked for once

    def at(self, sigma: Tensor | None) -> KeysValues:
        """K' and V' of a step, weights with them. sigma: [1] on the model's device; None where `is_constant`."""


@dataclass(frozen=True, eq=False)
class Constant:
    """K' and V' that do not depend on the step."""

    kv: KeysValues
    is_constant = True

    def at(self, sigma: Tensor | None = None) -> KeysValues:
        return self.kv


@torch.no_grad()
def constant_keys_values(references: Sequence[Reference], device: torch.device, dtype: torch.dtype) -> list[Constant]:
    """K' and V' of references in their order, on `device` in `dtype`.

    Each adapter is loaded once for all its references and released: no weight of it is held while the base runs.
    """
    made: dict[int, Constant] = {}
    for adapter in dict.fromkeys(reference.adapter for reference in references):
        with _loaded(adapter.patcher):
            for position, reference in enumerate(references):
                if reference.adapter is adapter:
                    made[position] = Constant(_keys_values(reference, device, dtype))
    return [made[position] for position in range(len(references))]


@contextmanager
def _loaded(patcher: Any) -> Iterator[None]:
    comfy.model_management.load_models_gpu([patcher])
    try:
        yield
    finally:
        comfy.model_management.unload_model_and_clones(patcher)


def _keys_values(reference: Reference, device: torch.device, dtype: torch.dtype) -> KeysValues:
    device_of_adapter = reference.adapter.patcher.load_device
    inputs = reference.inputs.to(device_of_adapter)
    if reference.combine == AVERAGE:
        inputs = inputs.mean()
    tokens = reference.image_tokens(inputs)
    empty = reference.image_tokens(reference.unconditional.to(device_of_adapter))
    if reference.combine == CONCATENATE:
        tokens = rearrange(tokens, "p t c -> 1 (p t) c")
        empty = empty.repeat(1, inputs.rows, 1)  # the same attention, as many tokens as the conditional

    def weighted(role: Role, image_tokens: Tensor) -> dict[int, ImageKV]:
        found = reference.adapter.model.keys_values(image_tokens, reference.layer_weights)
        return {
            index: ImageKV(k.to(device, dtype), (v * reference.weight_of(index, role)).to(device, dtype))
            for index, (k, v) in found.items()
        }

    return {role: weighted(role, image) for role, image in ((Role.CONDITIONAL, tokens), (Role.UNCONDITIONAL, empty))}
