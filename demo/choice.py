"""Which pictures are shown: rules that the page states. Those that pocket's judge finds right come first, in order.

Shapes: N references or pictures.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pocket.evidence.prompt import LOWER, UPPER, slices
from pocket.evidence.regions import told, wanted
from pocket.training.judge import Judge
from pocket.world.drawing import SIDE
from pocket.world.scenes import BACKGROUND, COLOUR, SHAPE, SIZE, SIZES


def first(right: Tensor, count: int) -> list[int]:
    """Numbers of the first of [N] that are right; where there are fewer, of others after them."""
    return torch.argsort(~right, stable=True)[:count].tolist()


def all_right(judge: Judge, made: Tensor, scenes: Tensor) -> Tensor:
    """Where pictures [N, 3, 64, 64] have all five attributes of their scenes [N, 5], by the judge, [N]."""
    return (judge.verdict(made).attributes == scenes).all(1)


def different(numbers: Iterable[int], scenes: Tensor, count: int) -> list[int]:
    """The first of these numbers whose shape and colour none before them has."""
    found: list[int] = []
    for number in numbers:
        taken = scenes[found][:, [SHAPE, COLOUR]] == scenes[number, [SHAPE, COLOUR]]
        if not taken.any() and len(found) < count:
            found.append(number)
    return found


def clean_ends(judge: Judge, made: Tensor, scenes: Tensor, shape: int) -> Tensor:
    """Where the first of pictures [W, N, ...] is the text's shape in nothing of the reference's, the last all of the
    reference, which has another shape."""
    start = judge.verdict(made[0]).attributes
    of_reference = (start[:, [COLOUR, BACKGROUND]] == scenes[:, [COLOUR, BACKGROUND]]).any(1)
    is_other = scenes[:, SHAPE] != shape
    return (start[:, SHAPE] == shape) & ~of_reference & is_other & all_right(judge, made[-1], scenes)


def halves_right(judge: Judge, made: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
    """Where pictures keep the one big shape of both scenes [N, 5], and each half its own colours and pattern, [N]."""
    are_alike = (upper[:, [SHAPE, SIZE]] == lower[:, [SHAPE, SIZE]]).all(1) & (upper[:, SIZE] == SIZES.index("big"))
    whole = (judge.verdict(made).attributes[:, [SHAPE, SIZE]] == upper[:, [SHAPE, SIZE]]).all(1)
    halves = [told(made, *slices(part, SIDE)) == wanted(own) for part, own in ((UPPER, upper), (LOWER, lower))]
    return are_alike & whole & torch.cat(halves, 1).all(1)


def partner(scenes: Tensor, number: int) -> int:
    """The first of scenes [N, 5] with the shape and size of one of them, in another colour; if none is, the next."""
    alike = (scenes[:, [SHAPE, SIZE]] == scenes[number, [SHAPE, SIZE]]).all(1)
    found = (alike & (scenes[:, COLOUR] != scenes[number, COLOUR])).nonzero()
    return int(found[0]) if len(found) else (number + 1) % len(scenes)
