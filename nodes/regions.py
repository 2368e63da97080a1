"""Several image prompts on one model, each in its own part of the picture, with texts of their own.

Shapes: M masks of a region (one, or one for each latent), h and w of a mask in any unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import node_helpers
import torch
import torch.nn.functional as F
from torch import Tensor

from ..ipadapter_core import Influence
from .apply import apply_adapter
from .models import Adapter
from .prompts.protocol import Prompt


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the picture and what it follows.

    settings: what `apply_adapter` takes; the mask of its influence says where, None: where no other region is.
    text: conditioning for this part alone, or None. adapter: its own, or None for the one of all.
    """

    prompt: Prompt
    settings: dict[str, Any]
    text: list[Any] | None = None
    adapter: Adapter | None = None

    @property
    def influence(self) -> Influence:
        influence: Influence = self.settings["influence"]
        return influence


def apply_regions(
    model: Any, adapter: Adapter, regions: Sequence[Region], text: list[Any] | None
) -> tuple[Any, list[Any]]:
    """A clone of MODEL that follows each region's pictures there, and the texts of all parts as one conditioning.

    text: of the whole picture; where a region has its own, only that one counts.
    Raises ValueError when there is no region, or when something of one does not fit; it names the region by number.
    """
    if not regions:
        raise ValueError("there are no regions: connect at least one Region")
    masks = _masks(regions)
    for number, (region, mask) in enumerate(zip(regions, masks), 1):
        settings = region.settings | {"influence": replace(region.influence, mask=mask)}
        try:
            model = apply_adapter(model, region.adapter or adapter, region.prompt, **settings)
        except ValueError as error:
            raise ValueError(f"region {number}: {error}") from error
    return model, _texts(regions, masks, text)


def _masks(regions: Sequence[Region]) -> list[Tensor | None]:
    """The mask of each region [M, h, w]; the background's is what the others leave."""
    given = [region.influence.masks for region in regions]
    known = [mask for mask in given if mask is not None]
    background = complement(known) if known else None
    return [background if mask is None else mask for mask in given]


def complement(masks: Sequence[Tensor]) -> Tensor:
    """1 less the sum of masks [M, h, w] of any sizes, at least 0, at the largest one's size."""
    size = max((tuple(mask.shape[-2:]) for mask in masks), key=lambda size: size[0] * size[1])
    count = max(len(mask) for mask in masks)
    total = torch.zeros(count, *size)
    for mask in masks:
        same = F.interpolate(mask[:, None].float().cpu(), size, mode="bilinear")[:, 0]
        total += same[torch.arange(count) % len(same)]
    return (1 - total).clamp(0, 1)


def _texts(regions: Sequence[Region], masks: Sequence[Tensor | None], text: list[Any] | None) -> list[Any]:
    """The regions' texts where they are, and the text of all where there is no other."""
    own = [(region.text, mask) for region, mask in zip(regions, masks) if region.text is not None]
    parts = [part for of_region, mask in own for part in _at(of_region, mask)]
    taken = [mask for _, mask in own if mask is not None]
    if text is None or len(taken) < len(own):  # a region's text that counts everywhere
        return parts
    left = complement(taken) if taken else None
    return [*(_at(text, left) if left is None or left.any() else []), *parts]


def _at(text: list[Any], mask: Tensor | None) -> list[Any]:
    """A conditioning that counts within a mask, as Conditioning (Set Mask) makes it."""
    if mask is None:
        return text
    values = {"mask": mask, "set_area_to_bounds": False, "mask_strength": 1.0}
    return list(node_helpers.conditioning_set_values(text, values))
