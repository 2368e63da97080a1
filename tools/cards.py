"""The pictures of workflows/ in the template browser: what a graph makes, with its references on it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from tools.comfyui import ROOT

EXAMPLES = ROOT / "web" / "pictures"
SIDE = 400  # pixels, as large as the browser shows a card on a fine screen
EDGE, GAP = 4, 12  # of a picture on another one: its white rim, and its distance from the border
INSET = 118
FOOT, BASELINE = 52, 34  # a card is shown cut by some 5 %, so its line stands above the middle of its strip
LARGEST = 30_000  # bytes
WHITE, DARK = (255, 255, 255), (24, 26, 32)

Labelled = tuple[str, Image.Image]


def filled(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a picture, in a size."""
    return ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS)


def label(card: Image.Image, text: str, left: int, top: int, is_above: bool = False, size: int = 15) -> None:
    """White words in a dark pill, whose upper left corner is here, or its lower one."""
    if not text:
        return
    font, canvas = ImageFont.load_default(size), ImageDraw.Draw(card)
    start, _, end, bottom = font.getbbox(text)
    width, height = int(end - start) + 18, int(bottom) + 9
    top -= height if is_above else 0
    canvas.rounded_rectangle((left, top, left + width, top + height), 8, fill=DARK)
    canvas.text((left + 9 - start, top + 4), text, font=font, fill=WHITE)


def put_insets(card: Image.Image, insets: Sequence[Image.Image], is_grid: bool) -> None:
    """References on top: in the middle of four pictures, or along the left side of one."""
    side = INSET if len(insets) < 3 else 84
    total = len(insets) * (side + 2 * EDGE) + (len(insets) - 1) * GAP
    for place, inset in enumerate(insets):
        along = place * (side + 2 * EDGE + GAP)
        left = (SIDE - total) // 2 + along if is_grid else GAP
        top = (SIDE - FOOT - side) // 2 - EDGE if is_grid else SIDE - FOOT - GAP - total + along
        card.paste(WHITE, (left, top, left + side + 2 * EDGE, top + side + 2 * EDGE))
        card.paste(filled(inset, side, side), (left + EDGE, top + EDGE))


def card_of(cells: Sequence[Labelled], insets: Sequence[Image.Image], foot: str) -> Image.Image:
    """A square of one, two or four pictures with words on them, insets on top and a line along the lower edge."""
    card = Image.new("RGB", (SIDE, SIDE), DARK)
    columns, rows = (1, 2, 2, 2)[len(cells) - 1], (1, 1, 2, 2)[len(cells) - 1]
    width, height = SIDE // columns, (SIDE - FOOT) // rows
    for place, (text, picture) in enumerate(cells):
        left, top = place % columns * width, place // columns * height
        card.paste(filled(picture, width, height), (left, top))
        if top == 0:
            label(card, text, left + 8, top + 8)
        else:  # away from the middle, where insets are
            label(card, text, left + 8, top + height - 8, is_above=True)
    put_insets(card, insets, is_grid=len(cells) == 4)
    font = ImageFont.load_default(17)
    ImageDraw.Draw(card).text((SIDE / 2, SIDE - BASELINE), foot, font=font, fill=WHITE, anchor="mm")
    return card


def save_card(card: Image.Image, path: Path) -> None:
    """As the best JPEG below LARGEST; the page knows no other kind for a pack."""
    for quality in range(90, 40, -5):
        content = io.BytesIO()
        card.save(content, "JPEG", quality=quality, optimize=True)
        if content.tell() < LARGEST:
            break
    path.write_bytes(content.getvalue())
