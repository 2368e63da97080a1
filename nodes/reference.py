"""An image prompt with all settings of Apply, and its K' and V'.

Shapes: P pictures or faces, T image tokens, C width that K' and V' read, D width of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import comfy.model_management
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..ipadapter_core import CONCATENATE, ONE_FOR_EACH, V_ONLY, Given, Influence, merged
from .models import Adapter
from .stacks import KeysValues, Role, Rows, Stack, picked


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

    def at(self, sigma: Tensor | None) -> KeysValues | tuple[Stack, ...]:
        """K' and V' of a step: weights in them, or stacks with weights beside them.

        sigma: [1] on the model's device; None where `is_constant`.
        """


@dataclass(frozen=True, eq=False)
class Constant:
    """K' and V' that do not depend on the step."""

    stacks: tuple[Stack, ...]
    is_constant = True

    def at(self, sigma: Tensor | None = None) -> tuple[Stack, ...]:
        return self.stacks

    @property
    def kv(self) -> KeysValues:
        """K' and V' with the weights in them."""
        return {role: {k: v for stack in self.stacks for k, v in stack.of_role(role).items()} for role in Role}


class Block(NamedTuple):
    """K' and V' of the layers of one shape, as the adapter made them: by role, [L, P, T, D]."""

    indices: tuple[int, ...]
    k: Mapping[Role, Tensor]
    v: Mapping[Role, Tensor]


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
                    blocks = computed(reference, tuple(reference.layer_weights), device, dtype)
                    made[position] = Constant(weighted(reference, blocks))
    return [made[position] for position in range(len(references))]


@contextmanager
def _loaded(patcher: Any) -> Iterator[None]:
    comfy.model_management.load_models_gpu([patcher])
    try:
        yield
    finally:
        comfy.model_management.unload_model_and_clones(patcher)


def computed(
    reference: Reference, layers: Sequence[int], device: torch.device, dtype: torch.dtype
) -> tuple[Block, ...]:
    """K' and V' of these layers on `device` in `dtype`, without a weight. The adapter is loaded."""
    tokens, model = _tokens(reference), reference.adapter.model
    found = {role: model.keys_values(of_role, layers) for role, of_role in tokens.items()}
    shapes: dict[int, list[int]] = {}
    for index in layers:
        shapes.setdefault(model.widths[index], []).append(index)

    def stack(role: Role, part: int, indices: list[int]) -> Tensor:
        return torch.stack([found[role][index][part] for index in indices]).to(device, dtype)

    return tuple(
        Block(tuple(indices), *({role: stack(role, part, indices) for role in tokens} for part in (0, 1)))
        for indices in shapes.values()
    )


def weighted(reference: Reference, blocks: Iterable[Block]) -> tuple[Stack, ...]:
    """The stacks of the layers that the reference acts in; others are left out."""
    pictures = reference.inputs.rows if reference.combine == CONCATENATE else 1
    stacks = []
    for block in blocks:
        for is_swapped in (False, True):
            wanted = [
                place for place, index in enumerate(block.indices)
                if index in reference.layer_weights and (index in reference.swapped) == is_swapped
            ]  # fmt: skip
            if wanted:
                indices = tuple(block.indices[place] for place in wanted)
                rows = {role: _rows(reference, block, wanted, role, is_swapped) for role in Role}
                stacks.append(Stack(indices, _plain(rows, reference), reference.influence.scaling, pictures))
    return tuple(stacks)


def _rows(reference: Reference, block: Block, wanted: list[int], role: Role, is_swapped: bool) -> Rows:
    """K', V' and weights of a role; where it is swapped, the picture acts in unconditional predictions alone."""
    source = Role.CONDITIONAL if is_swapped else role
    k, v = (picked(part[source], tuple(wanted), 0) for part in (block.k, block.v))
    acts = not is_swapped or role is Role.UNCONDITIONAL
    weights = torch.tensor([reference.weight_of(block.indices[place], role) * acts for place in wanted])
    return Rows(k, v, weights.view(-1, 1, 1, 1) * _picture_weights(reference, k.shape[2]))


def _plain(rows: Mapping[Role, Rows], reference: Reference) -> Mapping[Role, Rows]:
    """Without the weights where they change nothing."""
    is_one = all(bool((of_role.weights == 1).all()) for of_role in rows.values() if of_role.weights is not None)
    if not is_one or reference.influence.scaling != V_ONLY:
        return rows
    return {role: of_role._replace(weights=None) for role, of_role in rows.items()}


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


def _picture_weights(reference: Reference, num_tokens: int) -> Tensor:
    """The weights of pictures that keep tokens of their own, for each token: [P or 1, T or 1, 1]."""
    if not reference.picture_weights or reference.combine not in (CONCATENATE, ONE_FOR_EACH):
        return torch.ones(1, 1, 1)
    weights = torch.tensor(reference.picture_weights)
    if reference.combine == ONE_FOR_EACH:
        return weights.view(-1, 1, 1)
    return weights.repeat_interleave(num_tokens // len(weights)).view(1, -1, 1)
