"""A sheet of pictures as the model and the image encoder will see them, side by side, with their captions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ipadapter_core import Encoder
from ipadapter_core.method.picture import square

from ..data.pictures import Unusable, cut_target, decode
from ..data.record import Record, Source, UnreadableError
from ..settings.config import DataConfig

CELL = 192  # pixels of a picture's side
LABEL = 30  # pixels of the two lines of text above a picture
COLUMNS, ROWS = 4, 6
MARGIN = 6
LETTER = 6  # pixels of a letter's width


def writable_picture(path: Path, option: str) -> None:
    """Make a picture's folder, before work is spent on it. Raises ValueError when nothing can be written there."""
    Image.init()
    if path.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{option} {path} has no ending of a picture: give a name like {path.stem}.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written ({error.strerror}): give another place") from error


def write_sheet(path: Path, source: Source, data: DataConfig, encoder: Encoder) -> None:
    """Write up to 24 samples, spread evenly over the data. Raises OSError when the file cannot be written."""
    number = min(COLUMNS * ROWS, len(source))
    indices = np.linspace(0, len(source) - 1, number).round().astype(int)
    rows = -(-number // COLUMNS)
    width, height = 2 * CELL + MARGIN, LABEL + CELL + MARGIN
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    for place, index in enumerate(indices):
        left, top = place % COLUMNS * width, place // COLUMNS * height
        try:
            record = source.read(int(index))
        except UnreadableError as fault:
            label = _ascii(f"skipped: {fault}")[: 2 * CELL // LETTER]
            ImageDraw.Draw(sheet).text((left + 2, top + 1), label, fill="red")
            continue
        _draw(sheet, (left, top), record, data, encoder.image_size)
    sheet.save(path)


def _draw(sheet: Image.Image, corner: tuple[int, int], record: Record, data: DataConfig, size: int) -> None:
    left, top = corner
    letters = 2 * CELL // LETTER
    draw = ImageDraw.Draw(sheet)
    image = decode(record.image, data.min_side)
    seen = image if record.condition is None else decode(record.condition)
    if isinstance(image, Unusable) or isinstance(seen, Unusable):
        fault = image if isinstance(image, Unusable) else seen
        assert isinstance(fault, Unusable)
        draw.text((left + 2, top + 1), _ascii(f"{record.name}\nskipped: {fault.reason}")[: 2 * letters], fill="red")
        return
    label = f"{_ascii(record.name)[-letters // 2 :]}: model {data.resolution} px | encoder {size} px"
    draw.text((left + 2, top + 1), f"{label}\n{_ascii(record.captions[0])[:letters]}", fill="black")
    target = cut_target(image, data.resolution).image
    for number, picture in enumerate((target, square(seen, size))):
        sheet.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (left + number * CELL, top + LABEL))


def _ascii(text: str) -> str:
    # Pillow's own font has no other letters
    return text.encode("ascii", "replace").decode()
