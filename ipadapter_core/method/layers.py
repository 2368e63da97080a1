"""Which layers an image prompt acts in, and with what share of its weight, as a value that fits any model.

Layers are counted by attention module in forward order (down, middle, up), as people who tune adapters by layer count
them: SD1.5 and SD2 have 16 of one layer each, SDXL has 11 with 70 layers in all. `facts/presets.py` makes shares of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

ALL = "all"  # every layer alike, as in the training
SECTIONS = ("down", "middle", "up")
PART = re.compile(rf"^\s*(?:(\d{{1,3}})(?:\s*-\s*(\d{{1,3}}))?|({'|'.join(SECTIONS)}))\s*:\s*(\S+)\s*$")


@dataclass(frozen=True)
class Layers:
    """Shares of the weight.

    preset: its name. composition: factor of the layers that carry composition, in the presets that have them beside
    style. boost: factor of the layers that the two precise presets add. text: shares of single modules in place of the
    preset's, "3: 0.5, 6: 1", "0-5: 0.2" or "up: 1"; what is not named gets nothing. A precise preset keeps its swaps.
    Raises ValueError for a text that cannot be read, and for factors that are not finite.
    """

    preset: str = ALL
    composition: float = 1.0
    boost: float = 1.0
    text: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.composition) or not math.isfinite(self.boost):
            raise ValueError(f"a weight of layers is {self.composition} or {self.boost}: give finite numbers")
        self.named()

    def named(self) -> dict[int | str, float]:
        """Shares by module or section as the text names them, a later one over an earlier one; {} where it is blank."""
        shares: dict[int | str, float] = {}
        for part in re.split(r"[,;\n]", self.text):
            if not part.strip():
                continue
            match = PART.match(part)
            share = _number(match[4]) if match else None
            if match is None or share is None or (match[2] and int(match[2]) < int(match[1])):
                raise ValueError(
                    f"layer weights: {part.strip()!r} cannot be read: write a module, a range or one of "
                    f"{', '.join(SECTIONS)}, a colon and a number, as in '3: 0.5, 6-8: 1, up: 0.2'"
                )
            first, last, section = match[1], match[2], match[3]
            names = [section] if section else range(int(first), int(last or first) + 1)
            shares |= dict.fromkeys(names, share)
        return shares


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
