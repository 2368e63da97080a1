"""Pocket's world: what a picture shows, as numbers, and what a caption says of it.

A scene is five attributes, each a number into its list. Captions never tell pattern and size, and often not the
colours, so that only a picture carries them.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star", "heart", "moon", "cross", "ring")
COLOURS = {
    "red": (222, 36, 48),
    "yellow": (250, 210, 30),
    "green": (26, 146, 64),
    "blue": (38, 80, 218),
    "purple": (142, 44, 176),
    "black": (26, 26, 32),
}
BACKGROUNDS = {
    "white": (246, 246, 242),
    "pink": (250, 176, 204),
    "sky": (146, 208, 248),
    "mint": (160, 232, 178),
    "gray": (146, 146, 150),
    "orange": (246, 160, 80),
}
PATTERNS = ("plain", "stripes", "dots", "checks")
SIZES = ("small", "big")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(BACKGROUNDS),
    "pattern": PATTERNS,
    "size": SIZES,
}
SHAPE, COLOUR, BACKGROUND, PATTERN, SIZE = range(5)
COUNTS = tuple(map(len, ATTRIBUTES.values()))
WORDS = ("a", "on", *SHAPES, *COLOURS, *BACKGROUNDS)

# Seeds of the sets that scenes are drawn for. FINAL is looked at once, when everything is trained.
TRAIN, DEVELOP, FINAL = 1, 2, 7_000


def is_held_out(scenes: Tensor) -> Tensor:
    """Whether shape, colour and pattern of scenes [N, 5] are a combination that no training ever sees: 24 of 192."""
    return (scenes[:, SHAPE] + 2 * scenes[:, COLOUR] + 3 * scenes[:, PATTERN]) % 8 == 0


def random_scenes(count: int, generator: torch.Generator, held_out: bool | None = None) -> Tensor:
    """Scenes [N, 5]; of the combinations kept out of training (True), of the others (False), or of all (None)."""
    found = torch.empty(0, len(COUNTS), dtype=torch.long)
    while len(found) < count:
        drawn = torch.stack([torch.randint(size, (4 * count,), generator=generator) for size in COUNTS], dim=1)
        if held_out is not None:
            drawn = drawn[is_held_out(drawn) == held_out]
        found = torch.cat([found, drawn])
    return found[:count]


def caption(scene: Tensor, with_colour: bool, with_background: bool) -> str:
    """E.g. "a red star on pink"."""
    shape, colour, background = (int(scene[attribute]) for attribute in (SHAPE, COLOUR, BACKGROUND))
    words = ["a", *([tuple(COLOURS)[colour]] if with_colour else []), SHAPES[shape]]
    return " ".join(words + (["on", tuple(BACKGROUNDS)[background]] if with_background else []))


def captions(scene: Tensor) -> list[str]:
    """The four captions of a scene: with and without each colour."""
    return [caption(scene, colour, background) for colour in (False, True) for background in (False, True)]
