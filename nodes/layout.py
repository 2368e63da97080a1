"""What every forward pass is given of an image prompt: K' and V', where they count and how much.

Shapes: B batch of a forward pass (its chunks, one for each conditioning, times the latents that it sees), H heads, T
image tokens, d width of a head, M masks, N positions of a layer, h and w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..ipadapter_core import V_ONLY, ImageKV, Influence, Placement
from .stacks import KeysValues, Role, Stack, picked, repeated, sent, stacked

KEY = "image_prompt"  # ours in transformer_options, wrappers, callbacks and attachments
IMAGES = "image_prompt_kv"  # in transformer_options: position of a reference to its ReferenceTensors

KEPT = 4  # layouts of a reference; context windows may give another one at every step
LEVELS = 4  # of halvings of the latents, for which masks are resized beforehand

Grid = tuple[int, int]  # height and width of the positions of a layer


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
    in it; None: all of them. size: height and width of what is seen, where a mask's grid is guessed from it.
    """

    rows: tuple[int, ...]
    cut: tuple[int, tuple[int, ...]] | None = None
    size: Grid | None = None


@dataclass(frozen=True)
class Where:
    """A mask at the positions of layers. mask: [B, 1, h, w]; factors: by grid, [B, N, 1] for a step's weight.

    frames, weight: what is in the factors beside the mask, [B, 1, 1] and [1, 1, 1], or None. size: what the pass sees,
    where grids are guessed from it.
    """

    mask: Tensor
    factors: Mapping[Grid, Tensor]
    frames: Tensor | None = None
    weight: Tensor | None = None
    size: Grid | None = None

    def at(self, grid: Grid) -> Tensor:
        """The factor [B, N, 1] of a grid; those that no layer was expected to have are made here."""
        found = self.factors.get(grid)
        if found is None:
            like = next(iter(self.factors.values()))
            return _product(_positions(self.mask, grid, self.size), self.frames, self.weight).to(like)
        return found


@dataclass(frozen=True)
class ReferenceTensors:
    """What a reference gives one forward pass.

    layers: K', V' [B, H, T, d] by index of a site, with a factor [B, 1, 1] of the site and the rescale, if any.
    where: a mask, its factors with all below in them. factor: [B or 1, 1, 1], the step's weight and the latents' in
    one, without a mask; None: nothing. weight: the step's, [1, 1, 1], or None.
    """

    layers: Mapping[int, ImageKV]
    where: Where | None = None
    factor: Tensor | None = None
    weight: Tensor | None = None

    def image(self, image: ImageKV, options: Mapping[str, Any], q: Tensor, grid: Callable[..., Grid]) -> ImageKV:
        """K', V' of a layer, and all that the attended is multiplied with in one factor, on q's device and dtype.

        grid: options to height and width of the N positions of the layer.
        """
        factor = self.factor if self.where is None else self.where.at(grid(options))
        k, v, own, rescale = image
        is_ready = k.dtype == q.dtype and k.device == q.device
        if factor is None and is_ready:
            return image
        if own is not None:
            factor = _product(own, factor)
        if not is_ready:
            k, v = k.to(q), v.to(q)
            factor = None if factor is None else factor.to(q)
        return ImageKV(k, v, factor, rescale)


class Layouts:
    """The tensors of a reference for different batches of chunks, made once for each of the last few.

    given: K' and V' by role, or their stacks. heads: of a site. size: height and width of the whole latents.
    """

    def __init__(
        self, given: KeysValues | tuple[Stack, ...], heads: Mapping[int, int], influence: Influence, size: Grid
    ) -> None:
        self.stacks = given if isinstance(given, tuple) else stacked(given)
        self.heads = heads
        self.mask, self.size = influence.masks, size
        self.frames = torch.tensor(influence.frames) if influence.frames else None
        # Weights that K' takes too need rows of K' and V' for each latent; all others are a factor of the attended.
        has_weights = all(rows.weights is not None for stack in self.stacks for rows in stack.rows.values())
        self.has_rows = self.frames is not None and influence.scaling != V_ONLY and has_weights
        self.has_frames = self.frames is not None and not self.has_rows
        self.rescale = influence.rescale
        self.placement = influence.placement
        # Rows beyond these look like others.
        longest = math.lcm if self.placement.beyond == "again" else max
        self.num_rows = longest(*(stack.num_rows for stack in self.stacks), self._count(self.has_rows))
        masks = 1 if self.mask is None else len(self.mask)
        self.num_factors = longest(masks, self._count(self.has_frames))
        self.layers = lru_cache(maxsize=KEPT)(self._layers)
        self.factors = lru_cache(maxsize=KEPT)(self._factors)

    def tensors(
        self, chunks: tuple[Chunk, ...], excerpt: Excerpt, device: torch.device, weight: Tensor | None
    ) -> ReferenceTensors:
        """What a batch of chunks is given; weight: [1, 1, 1] or None."""
        roles = tuple(chunk.role for chunk in chunks)
        layers = self.layers(roles, self._rows(excerpt.rows, self.num_rows), device)
        dtype = next(iter(layers.values())).k.dtype if layers else torch.float32
        if self.mask is None and not self.has_frames:
            factor = None if weight is None else weight.to(device, dtype)
            return ReferenceTensors(layers, factor=factor, weight=weight)
        areas = tuple(chunk.area for chunk in chunks)
        seen = replace(excerpt, rows=self._rows(excerpt.rows, self.num_factors))
        if weight is None:
            frames, where = self.factors(areas, seen, device, dtype)
            return ReferenceTensors(layers, where, None if where else frames)
        weight = weight.to(device)
        frames, where = self.factors(areas, seen, device, torch.float32)
        if where is None:
            assert frames is not None, "a factor is a mask, frames, or both"
            return ReferenceTensors(layers, factor=(frames * weight).to(dtype), weight=weight)
        factors = {grid: (factor * weight).to(dtype) for grid, factor in where.factors.items()}
        return ReferenceTensors(layers, replace(where, factors=factors, weight=weight), weight=weight)

    def _rows(self, rows: tuple[int, ...], count: int) -> tuple[int, ...]:
        """The rows in a list of `count`, for those beyond its end too."""
        return repeated(rows, count) if self.placement.beyond == "again" else tuple(min(row, count - 1) for row in rows)

    def _count(self, has_frames: bool) -> int:
        return len(self.frames) if has_frames and self.frames is not None else 1

    def _layers(self, roles: tuple[Role, ...], rows: tuple[int, ...], device: torch.device) -> dict[int, ImageKV]:
        """K', V' of a batch of chunks by index of a site, in the order of the stacks."""
        frames = self._picked_frames(rows) if self.has_rows else None
        layers: dict[int, ImageKV] = {}
        for stack in self.stacks:
            layers |= stack.laid_out(roles, self._rows(rows, stack.num_rows), device, self.heads, frames)
        if self.rescale:
            amount = torch.full((1, 1, 1), self.rescale, device=device)
            layers = {index: image._replace(rescale=amount) for index, image in layers.items()}
        return layers

    def _factors(
        self, areas: tuple[tuple[int, ...] | None, ...], excerpt: Excerpt, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor | None, Where | None]:
        """The latents' factors [B, 1, 1], and the mask with them at the grids that layers are expected to have."""
        frames = None
        if self.has_frames:
            frames = sent(self._picked_frames(excerpt.rows).repeat(len(areas)).view(-1, 1, 1), device)
        if self.mask is None:
            return None if frames is None else frames.to(dtype), None
        seen = replace(excerpt, rows=self._rows(excerpt.rows, len(self.mask)))
        if excerpt.size is None:
            mask = sent(_masks(self.mask, self.size, areas, seen), device)
        else:
            mask = sent(_whole_masks(self.mask, seen.rows, len(areas)), device)
        grids = [grid_at(excerpt.size or mask.shape[-2:], level) for level in range(LEVELS)]
        factors = {grid: _product(_positions(mask, grid, excerpt.size), frames) for grid in grids}
        of_type = {grid: factor.to(dtype) for grid, factor in factors.items()}
        return frames, Where(mask, of_type, frames, size=excerpt.size)

    def _picked_frames(self, rows: tuple[int, ...]) -> Tensor:
        assert self.frames is not None
        return picked(self.frames, self._rows(rows, len(self.frames)), 0)


def grid_at(size: tuple[int, ...], level: int) -> Grid:
    """Height and width after so many halvings, as strided convolutions and patches make them: rounded up."""
    height, width = (-(-side // 2**level) for side in size)
    return height, width


def excerpt_of(
    options: Mapping[str, Any], count: int, latent_shape: tuple[int, ...], placement: Placement = Influence.placement
) -> Excerpt:
    """What `count` latents in a forward pass are of all: everything, or a context window's part."""
    window = options.get("context_window")
    if window is None or placement.windows == "AnimateDiff":
        indices = (options.get("ad_params") or {}).get("sub_idxs")  # AnimateDiff-Evolved's windows
        return Excerpt(tuple(range(count) if indices is None else indices))
    anchor = getattr(window, "causal_anchor_index", None)  # the latent before the window, which ComfyUI may add
    seen = (*(() if anchor is None else (anchor,)), *window.index_list)
    if window.dim == 0:
        return Excerpt(seen)
    axis = window.dim - len(latent_shape)
    return Excerpt(tuple(range(count)), (axis, seen) if axis in (-2, -1) else None)


def _product(factor: Tensor, *others: Tensor | None) -> Tensor:
    """The product of those that are there."""
    for other in others:
        factor = factor if other is None else factor * other
    return factor


def _positions(mask: Tensor, grid: Grid, size: Grid | None = None) -> Tensor:
    """A mask [B, 1, h, w] at the positions of a grid: [B, N, 1]. size: what the grid is guessed from, if it is."""
    if size is not None:
        return _guessed_positions(mask, size, math.prod(grid))
    return rearrange(F.interpolate(mask, grid, mode="area"), "b 1 h w -> b (h w) 1")


def _guessed_positions(mask: Tensor, size: Grid, count: int) -> Tensor:
    """A mask [B, 1, h, w] at `count` positions of which only the latents' size is known: [B, N, 1].

    As the most used ComfyUI pack does it: bilinear on the guessed grid, and 0 at both ends where that is too short.
    """
    height, width = size
    rows = int(height / math.sqrt(height * width / count))
    rows += count % rows != 0
    grid = F.interpolate(mask, (rows, count // rows), mode="bilinear").flatten(1)
    missing = count - grid.shape[1]
    return F.pad(grid, (missing // 2, missing - missing // 2))[..., None]


def _whole_masks(mask: Tensor, rows: tuple[int, ...], num_chunks: int) -> Tensor:
    """These rows of a mask [M, h, w] for each chunk, stretched over whatever it covers: [B, 1, h, w]."""
    return picked(mask[:, None].float(), rows, 0).repeat(num_chunks, 1, 1, 1)


def _masks(mask: Tensor, size: Grid, areas: tuple[tuple[int, ...] | None, ...], excerpt: Excerpt) -> Tensor:
    """A mask [M, h, w] cut to a context window and to the area of each chunk: [B, 1, h, w] in latent pixels.

    Only the rows that are seen are resized.
    """
    seen = mask if len(mask) == 1 else picked(mask, excerpt.rows, 0)
    whole = F.interpolate(rearrange(seen, "m h w -> m 1 h w").float(), size, mode="area")
    whole = picked(whole, excerpt.rows, 0) if len(mask) == 1 else whole
    if excerpt.cut is not None:
        axis, indices = excerpt.cut
        whole = whole.index_select(axis, sent(torch.tensor(indices), whole.device))
    parts = []
    for area in areas:
        dims = 0 if area is None else len(area) // 2
        height, width, top, left = (*whole.shape[-2:], 0, 0) if area is None else (*area[dims - 2 : dims], *area[-2:])
        parts.append(whole[..., top : top + height, left : left + width])
    return torch.cat(parts)
