"""An image prompt with all settings of Apply, and its K' and V'.

Shapes: P pictures or faces, T image tokens, C width that K' and V' read, D width of a layer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import comfy.model_management
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..ipadapter_core import CONCATENATE, ONE_FOR_EACH, V_ONLY, Given, Influence, merged
from ..ipadapter_core.method.combine import MERGES
from . import kept
from .kept import Block
from .models import Adapter
from .sameness import token_of, tokens_of, version_of
from .stacks import KeysValues, Role, Rows, Stack, picked


@dataclass(frozen=True, eq=False)
class Reference:
    """An image prompt on a model.

    inputs, unconditional: what the adapter's projection reads, of P pictures and of "no picture", or of negative ones.
    layer_weights: index of a site to weight, sites that do nothing left out. swapped: the sites where the picture acts
    in unconditional predictions and nothing in conditional ones. combine: one of COMBINE. picture_weights: a factor for
    each picture, or none. shortcut_scale: of FaceID plus v2. text_projection: the base's own, for adapters whose tokens
    go through it. token_scale: a factor of the image tokens, after that.
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
    token_scale: float = 1.0

    def image_tokens(self, inputs: Given) -> Tensor:
        """Image tokens [P, T, C] of these inputs."""
        tokens = self.adapter.model.image_tokens(inputs, self.shortcut_scale)
        if self.text_projection is not None:
            weight, bias = (value.to(tokens) for value in (self.text_projection.weight, self.text_projection.bias))
            tokens = F.linear(tokens, weight, bias)
        return tokens if self.token_scale == 1 else tokens * self.token_scale

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


@torch.no_grad()
def constant_keys_values(references: Sequence[Reference], device: torch.device, dtype: torch.dtype) -> list[Constant]:
    """K' and V' of references in their order, on `device` in `dtype`.

    Those of the last runs are kept (`kept.py`): where all are, no adapter is loaded and nothing is computed. Each other
    adapter is loaded once for all its references and released: no weight of it is held while the base runs.
    """
    requests: dict[Hashable, _Request] = {}
    keys = [_key(reference, device, dtype) for reference in references]
    for key, reference in zip(keys, references):
        requests.setdefault(key, _Request(reference)).layers |= dict.fromkeys(reference.layer_weights)
    states = {adapter: version_of(adapter.model) for adapter in dict.fromkeys(of.adapter for of in references)}
    for key, request in requests.items():
        request.entry = kept.find(key, request.reference.adapter, states[request.reference.adapter])
    kept.sweep(requests)
    for adapter in states:
        missing = [request for request in requests.values() if request.reference.adapter is adapter and request.missing]
        if missing:
            with _loaded(adapter.patcher):
                made = [computed(request.reference, request.missing, device, dtype) for request in missing]
            # What loading and releasing count as changes are none.
            states[adapter] = version_of(adapter.model)
            for request, blocks in zip(missing, made):
                request.made = _joined(request.blocks, blocks)
    for key, request in requests.items():
        if request.made:
            adapter = request.reference.adapter
            request.entry = kept.keep(key, adapter, states[adapter], request.made, device)
    kept.load(request.entry for request in requests.values() if request.entry is not None)
    for key, reference in zip(keys, references):
        if (entry := requests[key].entry) is not None:
            entry.adopt(reference.inputs)
    return [Constant(weighted(reference, requests[key].blocks)) for key, reference in zip(keys, references)]


@dataclass
class _Request:
    """What a run needs of K' and V' that are the same but for the weight. made: blocks, where some were computed."""

    reference: Reference
    layers: dict[int, None] = field(default_factory=dict)
    entry: kept.Entry | None = None
    made: tuple[Block, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self.made if self.entry is None else self.entry.blocks()

    @property
    def missing(self) -> tuple[int, ...]:
        known = {index for block in self.blocks for index in block.indices}
        return tuple(index for index in self.layers if index not in known)


def _key(reference: Reference, device: torch.device, dtype: torch.dtype) -> Hashable:
    """All that unweighted K' and V' depend on, but for the layer and the adapter's own weights."""
    base = () if reference.text_projection is None else tuple(map(token_of, reference.text_projection.parameters()))
    given = tokens_of(reference.inputs), tokens_of(reference.unconditional)
    merged_by = reference.picture_weights if reference.combine in MERGES else ()
    request = reference.combine, merged_by, reference.shortcut_scale, base, reference.token_scale
    return id(reference.adapter), *given, *request, device, dtype


def _joined(blocks: Sequence[Block], new: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks of the same shapes as one."""
    by_shape: dict[tuple[int, ...], list[Block]] = {}
    for block in (*blocks, *new):
        by_shape.setdefault(tuple(block.k[Role.CONDITIONAL].shape[1:]), []).append(block)

    def whole(of: list[Block]) -> Block:
        if len(of) == 1:
            return of[0]
        device = of[-1].k[Role.CONDITIONAL].device
        parts = (
            {role: torch.cat([part[role].to(device) for part in parts]) for role in Role}
            for parts in ([block.k for block in of], [block.v for block in of])
        )
        return Block(tuple(index for block in of for index in block.indices), *parts)

    return tuple(whole(of) for of in by_shape.values())


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
    shapes: dict[int, list[int]] = {}
    for index in layers:
        shapes.setdefault(model.widths[index], []).append(index)

    def block(indices: list[int]) -> Block:
        parts: tuple[dict[Role, Tensor], dict[Role, Tensor]] = {}, {}
        for role, of_role in tokens.items():
            for part, values in zip(parts, zip(*model.keys_values(of_role, indices).values())):
                part[role] = torch.stack(values).to(device, dtype)
        return Block(tuple(indices), *parts)

    return tuple(map(block, shapes.values()))


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
