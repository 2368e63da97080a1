"""The picture of docs/controls/seen.md: what an image encoder sees of wide pictures, by crop and in tiles.

No model is asked: these are the functions that nodes and trainer cut pictures with.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ipadapter_core.method.picture import CROPS, encoder_views
from ipadapter_core.method.tiles import tiling

from ..sheet import CELL, Row, draw_sheet

COUNT = 2  # wide pictures
CUTS = tuple(crop for crop in CROPS if crop not in ("top", "bottom"))  # these two differ in tall pictures alone
SHARPENED = 0.8


def write_seen(references: Tensor, path: Path, left: int, quality: int) -> None:
    """Write the sheet; references: [2 COUNT, 3, 64, 64] of 0..1, two beside each other are one wide picture."""
    wide = torch.cat([references[:COUNT], references[COUNT : 2 * COUNT]], 3).movedim(1, -1)
    views = {crop: encoder_views(wide, CELL, crop) for crop in CUTS}
    views[f"sharpened\n{SHARPENED:g}"] = encoder_views(wide, CELL, sharpening=SHARPENED)
    tiles = tiling(*wide.shape[1:3])
    of_tiles = torch.stack([encoder_views(tiles.cut(picture), CELL, "stretch") for picture in wide])
    views |= {f"tile {number}": tile for number, tile in enumerate(of_tiles.unbind(1), 1)}
    rows = [Row(label, seen.movedim(-1, 1)) for label, seen in views.items()]
    draw_sheet(rows, left=left).save(path, quality=quality, method=6)
