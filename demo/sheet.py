"""What `make demo` shows as one picture: sections of rows, labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from demo.showcase import LARGE, SHOWN, Section

SIDE, GAP = 128, 8  # pixels: of a picture, between pictures
LEFT, TITLE, CAPTION = 190, 58, 24  # of the labels, of a section's title, of a line under pictures
LARGE_SIDE = (SHOWN // LARGE) * (SIDE + GAP) - GAP
INK, GRAY, BLUE, PAPER = "#1d1d1f", "#6e6e73", "#0071e3", "#ffffff"
QUALITY = 88  # of WebP, 0 to 100


def write_sheet(sections: Sequence[Section], path: Path) -> None:
    """All rows as one picture; blue frames are what the model is given."""
    width = LEFT + SHOWN * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, sum(map(height, sections)) + GAP), PAPER)
    y = 0
    for section in sections:
        draw(section, sheet, y)
        y += height(section)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True, quality=QUALITY, method=6)


def side(section: Section) -> int:
    """Of its pictures, in pixels."""
    return LARGE_SIDE if section.is_large else SIDE


def height(section: Section) -> int:
    return TITLE + sum(side(section) + GAP + CAPTION * bool(row.captions) for row in section.rows)


def draw(section: Section, sheet: Image.Image, y: int) -> None:
    """One section on a sheet, from a height in pixels down."""
    pen, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(22), ImageFont.load_default(15)
    pen.text((GAP, y + TITLE - 14), section.title, INK, large, anchor="ls")
    y, size = y + TITLE, side(section)
    for row in section.rows:
        label = row.label.replace(" (", "\n(").replace("), ", "),\n").replace(" + ", "\n+ ")
        pen.multiline_text((GAP, y + size // 2), label, GRAY, small, anchor="lm", spacing=5)
        for column, picture in enumerate(row.pictures[:SHOWN]):
            x = LEFT + column * (size + GAP)
            sheet.paste(enlarged(picture, size), (x, y))
            if column < row.given:
                pen.rectangle((x - 2, y - 2, x + size + 1, y + size + 1), outline=BLUE, width=2)
            if row.captions:
                pen.text((x + size // 2, y + size + CAPTION // 2), row.captions[column], GRAY, small, anchor="mm")
        y += size + GAP + CAPTION * bool(row.captions)


def enlarged(picture: Tensor, size: int) -> Image.Image:
    """[3, 64, 64] of 0..1, larger and smooth."""
    pixels = (picture * 255).round().byte().movedim(0, -1).numpy()
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)
