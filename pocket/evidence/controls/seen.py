"""The picture of docs/controls/seen.md: what an image encoder sees of a wide picture, by crop and in tiles.

No model is asked: these are the functions that nodes and trainer cut pictures with.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ipadapter_core.method.picture import CROPS, encoder_views
from ipadapter_core.method.tiles import tiling

from ..sheet import CELL, Row, draw_sheet

ROWS = 2
CUTS = tuple(crop for crop in CROPS if crop not in ("top", "bottom"))  # these two differ in tall pictures alone
SHARPENED = 0.8


def write_seen(references: Tensor, path: Path, left: int, quality: int) -> None:
    """Write the sheet; references: [2 ROWS, 3, 64, 64] of 0..1, two beside each other are one wide picture."""
    wide = torch.cat([references[:ROWS], references[ROWS : 2 * ROWS]], 3).movedim(1, -1)
    views = [encoder_views(wide, CELL, crop) for crop in CUTS]
    views.append(encoder_views(wide, CELL, sharpening=SHARPENED))
    tiles = tiling(*wide.shape[1:3])
    of_tiles = torch.stack([encoder_views(tiles.cut(picture), CELL, "stretch") for picture in wide])
    columns = [*views, *of_tiles.unbind(1)]
    heads = [*CUTS, f"sharpened\n{SHARPENED:g}", *(f"tile {number}" for number in range(1, of_tiles.shape[1] + 1))]
    rows = [Row("wide picture", torch.stack([one[number].movedim(-1, 0) for one in columns])) for number in range(ROWS)]
    draw_sheet(rows, heads, left).save(path, quality=quality, method=6)
