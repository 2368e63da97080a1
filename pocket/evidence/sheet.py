"""Labelled sheets: one row of pictures for each label; a picture where something is wrong has a red line under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL, GAP, MARK = 64, 6, 3  # pixels: a picture, the room around it, the line of a failure
LEFT, HEAD, FONT, HEAD_FONT = 168, 14, 13, 11  # HEAD: of each line over the columns
INK, FAINT, WRONG = (32, 32, 36), (110, 110, 116), (214, 36, 36)
COLOURS = 256  # of a sheet: these pictures have few, and the file is a third of the size


@dataclass(frozen=True)
class Row:
    """pictures [N, 3, 64, 64] of 0..1. is_right [N]: None where nothing can be wrong."""

    label: str
    pictures: Tensor
    is_right: Tensor | None = None


def save_sheet(path: Path, rows: Sequence[Row], heads: Sequence[str] = ()) -> None:
    """Write rows of as many pictures each as a PNG of few colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(rows, heads).quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_sheet(rows: Sequence[Row], heads: Sequence[str] = (), left: int = LEFT) -> Image.Image:
    """Rows of as many pictures each. Labels may have three lines; heads, also of some lines, are above.

    left: pixels for the labels.
    """
    columns, top = len(rows[0].pictures), 4 + HEAD * max(head.count("\n") + 1 for head in heads) if heads else 0
    step = CELL + GAP
    sheet = Image.new("RGB", (left + columns * step, top + len(rows) * (step + MARK)), "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(FONT), ImageFont.load_default(HEAD_FONT)
    for column, head in enumerate(heads):
        x = left + column * step + CELL // 2
        draw.multiline_text((x, 2), head, FAINT, small, anchor="ma", align="center", spacing=2)
    for number, row in enumerate(rows):
        y = top + number * (step + MARK) + GAP // 2
        draw.multiline_text((8, y + CELL // 2), row.label, INK, font, anchor="lm", spacing=3)
        for column, picture in enumerate(row.pictures):
            x = left + column * step
            sheet.paste(_image(picture), (x, y))
            if row.is_right is not None and not row.is_right[column]:
                draw.rectangle((x, y + CELL + 1, x + CELL - 1, y + CELL + MARK), fill=WRONG)
    return sheet


def _image(picture: Tensor) -> Image.Image:
    values = (picture.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())
