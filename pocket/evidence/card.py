"""The model card's figures: how large each part is, and what was measured of the whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path

from ..places import Places
from .figures import Bar
from .report import table

CARD = Path(__file__).parents[1] / "README.md"
START, END = "<!-- written by `make evidence` -->", "<!-- end -->"


def fill(places: Places, bars: Sequence[Bar], card: Path = CARD) -> None:
    """Write sizes and bars between the card's two marks. Raises ValueError when it has no such marks."""
    text = card.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise ValueError(f"{card} has no place for the figures: put {START} and {END} into it")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    card.write_text(f"{before}{START}\n\n{sizes(places)}\n\n{table(bars)}\n\n{END}{after}", encoding="utf-8")


def sizes(places: Places) -> str:
    """Parameters and bytes of every file of weights, as a table."""
    files = sorted(places.weights.rglob("*.safetensors"))
    rows = [(str(file.relative_to(places.weights)), parameters(file), file.stat().st_size) for file in files]
    rows.append(("together", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    lines = ["| weights, fp16 | parameters | MB |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {number:,} | {size / 2**20:.2f} |" for name, number, size in rows)])


def parameters(file: Path) -> int:
    """Of a safetensors file, by its header alone."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    return sum(prod(value["shape"]) for name, value in header.items() if name != "__metadata__")
