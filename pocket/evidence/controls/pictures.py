"""The pictures of docs/controls: for each control a strip of references and what they become over its values.

References are the first of development, by number; a row has the same noise in every column.
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
from .seen import ROWS as SEEN_ROWS
from .seen import write_seen
from .strips import ROWS, STRIPS, Strip

LEFT, QUALITY = 84, 85  # pixels of the labels; of WebP, 0 to 100


def write(studio: Studio, folder: Path) -> None:
    """Write NAME.webp for each strip; pictures that were made before are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, strip in tqdm(STRIPS.items(), desc="strips", unit="strip"):
        columns = [column(studio, one) for one in strip.values()]
        labels = [label(studio, strip, number) for number in range(ROWS)]
        rows = [Row(text, torch.stack([one[number] for one in columns])) for number, text in enumerate(labels)]
        draw_sheet(rows, list(strip), LEFT).save(folder / f"{name}.webp", quality=QUALITY, method=6)
    world = studio.world(DEVELOP)
    references = world.references.of(torch.arange(2 * SEEN_ROWS))
    write_seen(references, folder / "seen.webp", LEFT, QUALITY)


def column(studio: Studio, one: str | Order) -> Tensor:
    """Its pictures, [ROWS, 3, 64, 64]."""
    if isinstance(one, Order):
        return studio.made(one).pictures
    world = studio.world(DEVELOP)
    return world.references.of(world.rows_of(one, torch.arange(ROWS)))


def label(studio: Studio, strip: Strip, number: int) -> str:
    has_text = any(isinstance(one, Order) and one.names_shape for one in strip.values())
    return f'"{studio.world(DEVELOP).text(number)}"' if has_text else "no text"
