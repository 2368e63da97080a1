"""What every forward pass is given of an image prompt: K' and V', where they count and how much.

Shapes: B batch of a forward pass (its chunks, one for each conditioning, times the latents that it sees), P rows that
a reference has (one, or one for each picture), T image tokens, D width of a layer, M masks, h and w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..ipadapter_core import ImageKV

KEY = "image_prompt"  # ours in transformer_options, wrappers, callbacks and attachments
IMAGES = "image_prompt_kv"  # in transformer_options: position of a reference to its ReferenceTensors

KEPT = 4  # layouts of a reference; context windows may give another one at every step


class Role(Enum):
    """What a prediction is for: image tokens of the picture, or those of no picture."""

    CONDITIONAL = "conditional"
    UNCONDITIONAL = "unconditional"


# By role and index of a site: K', V' [P, T, D]. A weight is folded into V'; where that is not enough, because the keys
# include the base's own, it is the factor [P, 1, 1].
KeysValues = Mapping[Role, Mapping[int, ImageKV]]


@dataclass(frozen=True)
class Chunk:
    """One conditioning of the sampler: its role, and the area of the latent that it covers (None: all).

    area: sizes, then offsets, of the latent's dimensions from the third on, as ComfyUI keeps it.
    """

    role: Role
    area: tuple[int, ...] | None = None


UNKNOWN = Chunk(Role.UNCONDITIONAL)


@dataclass(frozen=True)
class Excerpt:
    """Which part of the whole latents a forward pass sees.

    rows: the latents of the batch. cut: a context window along the height (-2) or the width (-1), and the latent pixels
    in it; None: all of them.
    """

    rows: tuple[int, ...]
    cut: tuple[int, tuple[int, ...]] | None = None


@dataclass(frozen=True)
class ReferenceTensors:
    """What a reference gives one forward pass.

    layers: K', V' [B, T, D] and factors [B, 1, 1] by index of a site. mask: [B, 1, h, w] or None.
    weight: the step's, [1, 1, 1], or None.
    """

    layers: Mapping[int, ImageKV]
    mask: Tensor | None = None
    weight: Tensor | None = None

    def image(self, index: int, grid: Callable[[], tuple[int, int]], like: Tensor) -> ImageKV:
        """K', V' of a site, and all that the attended is multiplied with in one factor, on `like`'s device and dtype.

        grid: height and width of the N positions of the site.
        """
        k, v, factor = self.layers[index]
        if self.mask is not None:
            where = rearrange(F.interpolate(self.mask, grid(), mode="area"), "b 1 h w -> b (h w) 1")
            factor = where if factor is None else factor * where
        if self.weight is not None:
            factor = self.weight if factor is None else factor * self.weight
        return ImageKV(k.to(like), v.to(like), None if factor is None else factor.to(like))


class Layouts:
    """The tensors of a reference for different batches of chunks, made once for each of the last few.

    kv: K' and V' by role. mask: [M, h, w] or None. size: height and width of the whole latents.
    """

    def __init__(self, kv: KeysValues, mask: Tensor | None, size: tuple[int, int]) -> None:
        self.num_rows = max(len(k) for layers in kv.values() for k, *_ in layers.values())
        self.layers = lru_cache(maxsize=KEPT)(partial(_layers, kv))
        self.num_masks = 0 if mask is None else len(mask)
        self.masks = None if mask is None else lru_cache(maxsize=KEPT)(partial(_masks, mask, size))

    def tensors(
        self, chunks: tuple[Chunk, ...], excerpt: Excerpt, device: torch.device, weight: Tensor | None
    ) -> ReferenceTensors:
        """What a batch of chunks is given; weight: [1, 1, 1] or None."""
        roles = tuple(chunk.role for chunk in chunks)
        layers = self.layers(roles, _repeated(excerpt.rows, self.num_rows), device)
        mask = None
        if self.masks is not None:
            areas = tuple(chunk.area for chunk in chunks)
            mask = self.masks(areas, Excerpt(_repeated(excerpt.rows, self.num_masks), excerpt.cut), device)
        return ReferenceTensors(layers, mask, None if weight is None else weight.to(device))


def excerpt_of(options: Mapping[str, Any], count: int, latent_shape: tuple[int, ...]) -> Excerpt:
    """What `count` latents in a forward pass are of all: everything, or a context window's part."""
    window = options.get("context_window")
    if window is None:
        indices = (options.get("ad_params") or {}).get("sub_idxs")  # AnimateDiff-Evolved's windows
        return Excerpt(tuple(range(count) if indices is None else indices))
    anchor = getattr(window, "causal_anchor_index", None)  # the latent before the window, which ComfyUI may add
    seen = (*(() if anchor is None else (anchor,)), *window.index_list)
    if window.dim == 0:
        return Excerpt(seen)
    axis = window.dim - len(latent_shape)
    return Excerpt(tuple(range(count)), (axis, seen) if axis in (-2, -1) else None)


def _repeated(rows: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The rows in a list of `count` that is gone through again and again."""
    return tuple(row % count for row in rows)


def _layers(kv: KeysValues, roles: tuple[Role, ...], rows: tuple[int, ...], device: torch.device) -> dict[int, ImageKV]:
    """K', V' and factors of a batch of chunks by index of a site."""
    (first, *_) = kv.values()
    # One index of rows for all tensors of a role: a list would be sent to the device for each of them.
    k = {role: next(iter(kv[role].values())).k for role in set(roles)}
    picks = {role: _rows_of(rows, len(values), values.device) for role, values in k.items()}

    def batch(index: int) -> ImageKV:
        of_roles = [map(picks[role], (part for part in kv[role][index] if part is not None)) for role in roles]
        return ImageKV(*(torch.cat(parts).to(device) for parts in zip(*of_roles)))

    return {index: batch(index) for index in first}


def _rows_of(rows: tuple[int, ...], count: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    if count == 1:
        return lambda values: values.expand(len(rows), *values.shape[1:])
    if rows == tuple(range(count)):
        return lambda values: values
    index = torch.tensor(_repeated(rows, count), device=device)
    return lambda values: values.index_select(0, index)


def _masks(
    mask: Tensor, size: tuple[int, int], areas: tuple[tuple[int, ...] | None, ...], excerpt: Excerpt,
    device: torch.device,
) -> Tensor:  # fmt: skip
    """A mask [M, h, w] cut to a context window and to the area of each chunk: [B, 1, h, w] in latent pixels."""
    whole = F.interpolate(rearrange(mask, "m h w -> m 1 h w").float(), size, mode="area")
    whole = _rows_of(excerpt.rows, len(whole), whole.device)(whole)
    if excerpt.cut is not None:
        axis, indices = excerpt.cut
        whole = whole.index_select(axis, torch.tensor(indices, device=whole.device))
    parts = []
    for area in areas:
        dims = 0 if area is None else len(area) // 2
        height, width, top, left = (*whole.shape[-2:], 0, 0) if area is None else (*area[dims - 2 : dims], *area[-2:])
        parts.append(whole[..., top : top + height, left : left + width])
    return torch.cat(parts).to(device)
