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

from ..ipadapter_core import CONCATENATE, ONE_FOR_EACH, Given, ImageKV, Influence, merged, scaled
from .layout import KeysValues, Role
from .models import Adapter


@dataclass(frozen=True, eq=False)
class Reference:
    """An image prompt on a model.

    inputs, unconditional: what the adapter's projection reads, of P pictures and of "no picture", or of negative ones.
    layer_weights: index of a site to weight, sites that do nothing left out. swapped: the sites where the picture acts
    in unconditional predictions and nothing in conditional ones. combine: one of COMBINE. picture_weights: a factor for
    each picture, or none. shortcut_scale: of FaceID plus v2. text_projection: the base's own, for adapters whose tokens
    go through it.
    """

    adapter: Adapter
    inputs: Given
    unconditional: Given
    influence: Influence
    layer_weights: Mapping[int, float]
    combine: str = CONCATENATE
    picture_weights: tuple[float, ...] = ()
    swapped: frozenset[int] = frozenset()
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
    tokens = _tokens(reference)
    weights = _token_weights(reference, tokens[Role.CONDITIONAL])
    pictures = reference.inputs.rows if reference.combine == CONCATENATE else 1
    found = {role: reference.adapter.model.keys_values(of, reference.layer_weights) for role, of in tokens.items()}

    def site(index: int, role: Role) -> ImageKV:
        is_swapped = index in reference.swapped
        source = Role.CONDITIONAL if is_swapped else role
        weight = reference.weight_of(index, role) * (not is_swapped or role is Role.UNCONDITIONAL)
        factor = weight if weights is None else weights * weight
        k, v = scaled(*found[source][index], factor, reference.influence.scaling, pictures)
        return ImageKV(k.to(device, dtype), v.to(device, dtype))

    return {role: {index: site(index, role) for index in reference.layer_weights} for role in tokens}


def _tokens(reference: Reference) -> dict[Role, Tensor]:
    """Image tokens [P, T, C] of each role; the pictures' own one after another in one row where they concatenate."""
    device = reference.adapter.patcher.load_device
    inputs, nothing = reference.inputs.to(device), reference.unconditional.to(device)
    conditional = reference.image_tokens(merged(inputs, reference.combine, reference.picture_weights))
    if reference.combine == ONE_FOR_EACH and nothing.rows > 1:
        nothing = nothing.rows_for(inputs.rows)
    unconditional = reference.image_tokens(merged(nothing, reference.combine))
    if reference.combine == CONCATENATE:
        # The same attention, as many tokens as the conditional.
        rows = [min(row, nothing.rows - 1) for row in range(inputs.rows)]
        conditional, unconditional = (
            rearrange(tokens, "p t c -> 1 (p t) c") for tokens in (conditional, unconditional[rows])
        )
    return {Role.CONDITIONAL: conditional, Role.UNCONDITIONAL: unconditional}


def _token_weights(reference: Reference, tokens: Tensor) -> Tensor | None:
    """The weights of pictures that keep tokens of their own, for each token: [P or 1, T, 1]; None: all alike."""
    if not reference.picture_weights or reference.combine not in (CONCATENATE, ONE_FOR_EACH):
        return None
    weights = torch.tensor(reference.picture_weights, device=tokens.device, dtype=tokens.dtype)
    if reference.combine == ONE_FOR_EACH:
        return weights.view(-1, 1, 1)
    return weights.repeat_interleave(tokens.shape[1] // len(weights)).view(1, -1, 1)
