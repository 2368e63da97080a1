"""What pictures are asked for: plain values, so that a set of pictures has a name and is made once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..training.data import Pictures, references
from ..training.sampling import STEPS
from ..world.drawing import Chance, chance, silhouettes
from ..world.scenes import BACKGROUND, COLOUR, COUNTS, DEVELOP, PATTERN, SHAPE, SHAPES, SIZE
from ..world.settings import GUIDANCE
from .prompt import OPPOSITE, REFERENCE, SECOND, THIRD, Prompt

MOST = 512  # references of a world
PAPER_GUIDANCE = 7.5
GLOBAL, FINE = "pocket", "pocket_plus"  # the adapters, by the names of their files
ONE_SHAPE, ANY_SHAPE = "of one shape", "of any shape"  # two references in one picture
DOWN_8, DOWN_4, MIDDLE, UP_4, UP_8 = GROUPS = (
    "down, 8 x 8",
    "down, 4 x 4",
    "middle, 4 x 4",
    "up, 4 x 4",
    "up, 8 x 8",
)
OUTER = tuple(group for group in GROUPS if group != MIDDLE)  # the nodes' preset "middle off"


@dataclass(frozen=True)
class Order:
    """A set of pictures, one for each of the first `count` references of a world.

    adapter: the name of its file; "" = none. names_shape: the text names another shape than the reference's; else it
    is empty. groups: the layers that get the picture, of GROUPS. is_sticker: on the other look of the base.
    has_silhouette: a ControlNet gives another shape. halves: the reference in the upper half, another one, of
    ONE_SHAPE or ANY_SHAPE, in the lower half. seed: of the first picture's noise. world: the seed of the references.
    prompts: image prompts with the nodes' controls, in place of one with weight, groups and halves.
    """

    count: int
    adapter: str = ""
    guidance: float = GUIDANCE
    weight: float = 1.0
    names_shape: bool = False
    groups: tuple[str, ...] = GROUPS
    is_sticker: bool = False
    has_silhouette: bool = False
    halves: str = ""
    seed: int = 0
    steps: int = STEPS
    world: int = DEVELOP
    prompts: tuple[Prompt, ...] = ()


# A picture beside text or a silhouette, as documented: the middle layer, which carries mostly shape, is left to those.
BESIDE, BESIDE_NAME = Order(MOST, FINE, groups=OUTER), f"{FINE}, middle off"


@dataclass(frozen=True)
class World:
    """References of combinations held out of training, and what goes with each.

    named [N]: another shape. partners: by ONE_SHAPE and ANY_SHAPE the numbers [N] of references with another colour
    and pattern, of the same shape and size or of any. outlines [N, 5] and given: the scenes of the silhouettes, of
    the named shape and any size. others: by SECOND, THIRD and OPPOSITE the numbers [N] of other references, see
    `companions`.
    """

    references: Pictures
    named: Tensor
    partners: dict[str, Tensor]
    outlines: Tensor
    given: Chance
    others: dict[str, Tensor]

    def text(self, number: int) -> str:
        return f"a {SHAPES[int(self.named[number])]}"

    def rows_of(self, source: str, rows: Tensor) -> Tensor:
        """The numbers of the references that a source of a prompt means for these ones."""
        return rows if source == REFERENCE else self.others[source][rows]

    def silhouettes(self, rows: Tensor) -> Tensor:
        """White on black, [B, 3, 64, 64]."""
        return silhouettes(self.outlines[rows], self.given.of(rows))


def build_world(seed: int, count: int = MOST) -> World:
    """The same for the same seed and count."""
    found, generator = references(count, seed), torch.Generator().manual_seed(seed + 1_000_000)
    scenes = found.scenes
    others = torch.randint(1, COUNTS[SHAPE], (count,), generator=generator)
    named = (scenes[:, SHAPE] + others) % COUNTS[SHAPE]
    outlines = scenes.clone()
    outlines[:, SHAPE] = named
    outlines[:, SIZE] = torch.randint(COUNTS[SIZE], (count,), generator=generator)
    same = {one: scenes[:, one][:, None] == scenes[:, one][None] for one in (SHAPE, COLOUR, PATTERN, SIZE)}
    fits = {ANY_SHAPE: ~same[COLOUR] & ~same[PATTERN]}
    fits[ONE_SHAPE] = fits[ANY_SHAPE] & same[SHAPE] & same[SIZE]
    others = 1 - torch.eye(count)  # where none fits, any other reference
    chances = {kind: torch.where(fit.any(1, keepdim=True), fit.float(), others) for kind, fit in fits.items()}
    partners = {kind: torch.multinomial(chance, 1, generator=generator)[:, 0] for kind, chance in chances.items()}
    return World(found, named, partners, outlines, chance(count, generator), companions(scenes, seed))


def companions(scenes: Tensor, seed: int) -> dict[str, Tensor]:
    """For each of scenes [N, 5] the numbers [N] of others, by what they are for.

    SECOND and THIRD: of the same size, any shape; the three differ in colour, background and pattern. OPPOSITE: differs
    in all five. Where none fits, any other.
    """
    generator, count = torch.Generator().manual_seed(seed + 2_000_000), len(scenes)
    same = scenes[:, None] == scenes[None]  # N, N, 5
    apart = ~same[..., [COLOUR, BACKGROUND, PATTERN]].any(-1) & same[..., SIZE]
    anyone = 1 - torch.eye(count)

    def drawn(fit: Tensor) -> Tensor:
        chances = torch.where(fit.any(1, keepdim=True), fit.float(), anyone)
        return torch.multinomial(chances, 1, generator=generator)[:, 0]

    second = drawn(apart)
    return {SECOND: second, THIRD: drawn(apart & apart[second]), OPPOSITE: drawn(~same.any(-1))}
