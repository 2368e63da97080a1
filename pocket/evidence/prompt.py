"""An image prompt with the nodes' controls, as a plain value, and the parts of a picture that it may be given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ipadapter_core import CONCATENATE, V_ONLY, Curve, Layers

# Whose picture: the reference itself, or another one that `orders.companions` chooses for it.
REFERENCE, SECOND, THIRD, OPPOSITE = "reference", "second", "third", "opposite"
# Parts of a picture in halves of its side: from row, to row, from column, to column.
UPPER, LOWER, LOWER_LEFT, LOWER_RIGHT = "upper half", "lower half", "lower left", "lower right"
PARTS = {UPPER: (0, 1, 0, 2), LOWER: (1, 2, 0, 2), LOWER_LEFT: (1, 2, 0, 1), LOWER_RIGHT: (1, 2, 1, 2)}
EVERY_LAYER, ALL_THE_TIME = Layers(), Curve()
BACKGROUND_PART = "background"  # what the other prompts of an order leave


@dataclass(frozen=True)
class Prompt:
    """An image prompt and how it counts; what is left out has the nodes' neutral value.

    sources: whose pictures; several are one batch, which `combine` and picture_weights make sense of. part: of PARTS or
    BACKGROUND_PART; "" = everywhere. negative: whose picture stands in place of "no picture"; "" = none.
    """

    sources: tuple[str, ...] = (REFERENCE,)
    weight: float = 1.0
    layers: Layers = EVERY_LAYER
    curve: Curve = ALL_THE_TIME
    part: str = ""
    negative: str = ""
    combine: str = CONCATENATE
    picture_weights: tuple[float, ...] = ()
    scaling: str = V_ONLY
    rescale: float = 0.0


def slices(part: str, side: int) -> tuple[slice, slice]:
    """Rows and columns of a part in a picture of `side`."""
    top, bottom, left, right = (half * side // 2 for half in PARTS[part])
    return slice(top, bottom), slice(left, right)


def part_masks(prompts: tuple[Prompt, ...], side: int) -> list[Tensor | None]:
    """Where each prompt counts, [side, side]; the background is 1 less the others. None: everywhere."""
    drawn = {prompt.part: _drawn(prompt.part, side) for prompt in prompts if prompt.part in PARTS}
    rest = 1 - torch.stack([torch.zeros(side, side), *drawn.values()]).sum(0)
    return [None if not one.part else drawn.get(one.part, rest) for one in prompts]


def _drawn(part: str, side: int) -> Tensor:
    mask = torch.zeros(side, side)
    mask[slices(part, side)] = 1
    return mask
