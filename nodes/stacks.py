"""K' and V' of a reference: one stack for the layers of one shape, so that a run handles few tensors.

A stack keeps them without the weight, which is put in when a batch is laid out: for the rows of that batch alone, so
that a long video never holds all its rows twice, and so that they outlive a change of the weight.

Shapes: L layers of one shape, P rows of a reference (one, or one for each picture), B batch of a forward pass, T image
tokens, H heads, d width of a head, D = H · d width of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from ..ipadapter_core import V_ONLY, ImageKV, scaled, split_heads


class Role(Enum):
    """What a prediction is for: image tokens of the picture, or those of no picture."""

    CONDITIONAL = "conditional"
    UNCONDITIONAL = "unconditional"


# By role and index of a site: K', V' [P, T, D]. A weight is folded into V'; where that is not enough, because the keys
# include the base's own, it is the factor [P, 1, 1].
KeysValues = Mapping[Role, Mapping[int, ImageKV]]


class Rows(NamedTuple):
    """What a stack holds for one role: K', V' [L, P, T, D]; weights [L, P or 1, T or 1, 1] on the CPU, None where they
    are in V' already; factors [L, P, 1, 1] or None."""

    k: Tensor
    v: Tensor
    weights: Tensor | None = None
    factors: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Stack:
    """K' and V' of the layers of one shape by role.

    indices: of their sites. scaling, num_pictures: how the weights act on them, as `scaled` takes it.
    """

    indices: tuple[int, ...]
    rows: Mapping[Role, Rows]
    scaling: str = V_ONLY
    num_pictures: int = 1

    @property
    def num_rows(self) -> int:
        """The largest P."""
        return max(len(rows.k[0]) for rows in self.rows.values())

    def of_role(self, role: Role) -> dict[int, ImageKV]:
        """K', V' [P, T, D] with the weights in them, and factors, by index of a site."""
        rows = self.rows[role]
        k, v = self._weighted(rows.k, rows.v, rows.weights)
        return self._by_index(k.unbind(0), v.unbind(0), rows.factors)

    def laid_out(
        self,
        roles: tuple[Role, ...],
        rows: tuple[int, ...],
        device: torch.device,
        heads: Mapping[int, int],
        frames: Tensor | None,
    ) -> dict[int, ImageKV]:
        """K', V' [B, H, T, d] and factors [B, 1, 1] of chunks of these roles, by index of a site.

        rows: of the latents of a chunk, in a list that is gone through again. heads: of a site. frames: a factor of the
        weight for each of the rows.
        """
        of_roles = {role: self._picked(self.rows[role], rows, frames) for role in set(roles)}
        k, v, weights, factors = (_joined(parts, device) for parts in zip(*(of_roles[role] for role in roles)))
        assert k is not None and v is not None
        of_layers = [heads[index] for index in self.indices]
        k, v = self._weighted(k, v, weights)
        return self._by_index(_by_heads(k, of_layers), _by_heads(v, of_layers), factors)

    def _by_index(self, k: Sequence[Tensor], v: Sequence[Tensor], factors: Tensor | None) -> dict[int, ImageKV]:
        if factors is None:
            return {index: ImageKV(*image) for index, *image in zip(self.indices, k, v)}
        return {index: ImageKV(*image) for index, *image in zip(self.indices, k, v, factors.unbind(0))}

    def _picked(self, of: Rows, rows: tuple[int, ...], frames: Tensor | None) -> Rows:
        picks = [None if part is None else picked(part, rows, 1) for part in of]
        k, v, weights, factors = picks
        assert k is not None and v is not None
        if frames is not None:
            assert weights is not None, "a source whose weights are in V' has the frames in its factors"
            weights = weights * frames.view(-1, 1, 1)
        return Rows(k, v, weights, factors)

    def _weighted(self, k: Tensor, v: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """With the weights in them, rounded once: they are in fp32."""
        if weights is None:
            return k, v
        if self.scaling == V_ONLY:
            return k, (v * weights.to(v.device)).to(v.dtype)
        scaled_k, scaled_v = scaled(k.float(), v.float(), weights.to(v.device), self.scaling, self.num_pictures)
        return scaled_k.to(k.dtype), scaled_v.to(v.dtype)


def stacked(kv: KeysValues) -> tuple[Stack, ...]:
    """K' and V' by index of a site, weights in them, as one stack for each shape."""
    first, *_ = kv.values()
    shapes: dict[tuple[int, ...], list[int]] = {}
    for index, image in first.items():
        shapes.setdefault(tuple(image.k.shape), []).append(index)

    def of_role(layers: Mapping[int, ImageKV], indices: list[int]) -> Rows:
        k = torch.stack([layers[index].k for index in indices])
        v = torch.stack([layers[index].v for index in indices])
        factors = [factor for index in indices if (factor := layers[index].factor) is not None]
        assert len(factors) in (0, len(indices)), "a source gives all layers a factor, or none"
        return Rows(k, v, None, torch.stack(factors) if factors else None)

    return tuple(
        Stack(tuple(indices), {role: of_role(layers, indices) for role, layers in kv.items()})
        for indices in shapes.values()
    )


def picked(values: Tensor, rows: tuple[int, ...], dim: int) -> Tensor:
    """These rows of a list along `dim` that is gone through again and again; a view where that is possible."""
    count = values.shape[dim]
    if count == 1:
        shape = list(values.shape)
        shape[dim] = len(rows)
        return values.expand(shape)
    rows = repeated(rows, count)
    if rows == tuple(range(rows[0], rows[0] + len(rows))):
        return values.narrow(dim, rows[0], len(rows))
    return values.index_select(dim, sent(torch.tensor(rows), values.device))


def repeated(rows: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The rows in a list of `count` that is gone through again and again."""
    return tuple(row % count for row in rows)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device, without waiting for it where they come from the CPU."""
    if values.device.type == "cpu" and device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def _joined(parts: tuple[Tensor | None, ...], device: torch.device) -> Tensor | None:
    """The rows of all chunks on the device."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    return sent(found[0] if len(found) == 1 else torch.cat(found, 1), device)


def _by_heads(stack: Tensor, heads: list[int]) -> Sequence[Tensor]:
    """The layers of a stack [L, B, T, D] by heads, [B, H, T, d] each: views of it."""
    if len(set(heads)) == 1:
        return split_heads(stack, heads[0]).unbind(0)
    return [split_heads(layer, of_layer) for layer, of_layer in zip(stack.unbind(0), heads)]
