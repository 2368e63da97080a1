"""The pictures of docs/controls and of the help panels: for each control references and what they become.

References are the first of development, by number; a column has the same noise in every row. A help panel is narrow, so
values go down and references across.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...world.scenes import DEVELOP
from ..orders import Order
from ..sheet import Row, draw_sheet
from ..studio import Studio
from .seen import COUNT as WIDE
from .seen import write_seen
from .strips import COUNT, STRIPS, Strip

LEFT, QUALITY = 88, 85  # pixels of the labels; of WebP, 0 to 100


def write(studio: Studio, folder: Path) -> None:
    """Write NAME.webp for each strip; pictures that were made before are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, strip in tqdm(STRIPS.items(), desc="strips", unit="strip"):
        rows = [Row(value, column(studio, one)) for value, one in strip.items()]
        draw_sheet(rows, texts(studio, strip), LEFT).save(folder / f"{name}.webp", quality=QUALITY, method=6)
    world = studio.world(DEVELOP)
    references = world.references.of(torch.arange(2 * WIDE))
    write_seen(references, folder / "seen.webp", LEFT, QUALITY)


def column(studio: Studio, one: str | Order) -> Tensor:
    """The pictures of a value, [COUNT, 3, 64, 64]."""
    if isinstance(one, Order):
        return studio.made(one).pictures
    world = studio.world(DEVELOP)
    return world.references.of(world.rows_of(one, torch.arange(COUNT)))


def texts(studio: Studio, strip: Strip) -> list[str]:
    """What each reference's text says, where a strip has texts."""
    if not any(isinstance(one, Order) and one.names_shape for one in strip.values()):
        return []
    return [f'"{studio.world(DEVELOP).text(number)}"' for number in range(COUNT)]
