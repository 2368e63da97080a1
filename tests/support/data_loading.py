"""Loaders without pictures, and what their batches hold, for tests of order and drops."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from trainer.data import order
from trainer.data.batch import Batch, Item, Skipped
from trainer.data.geometry import Geometry
from trainer.data.loader import Loader
from trainer.data.record import Record
from trainer.settings.config import Config

LATENT = (4, 2, 2)


class CountingReader:
    """A source and its reader: sample `i` is named i and has the caption "i"; every `bad`-th cannot be used."""

    def __init__(self, number: int, bad: int = 0) -> None:
        self.number, self.bad = number, bad

    def __len__(self) -> int:
        return self.number

    def read(self, index: int, draws: order.Draws, drop_text: bool) -> Item | Skipped:
        if self.bad and index % self.bad == 0:
            return Skipped(str(index), "corrupt", "for a test")
        geometry = Geometry((index, index), (0, 0), (index, index))
        return Item(str(index), "" if drop_text else str(index), geometry, torch.full((3, 1, 1), float(index)))

    def captions(self, index: int) -> tuple[str, ...]:
        return (str(index),)

    def digest(self) -> str:
        return str(self.number)


class NoSource(CountingReader):
    """The same as a source, which only the grid's references read."""

    def read(self, index: int) -> Record:  # type: ignore[override]
        raise AssertionError(f"nothing should read sample {index}")


def loader(config: Config, reader: CountingReader, rank: int = 0, processes: int = 1, workers: int = 0) -> Loader:
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))
    return Loader(config, NoSource(reader.number), reader, rank, processes, LATENT)


def content(batch: Batch) -> list[tuple[object, ...]]:
    """Everything of each sample of a batch, comparable."""
    parts = (batch.pixels, batch.moments, batch.condition, batch.features, batch.drawn, batch.noise)
    values: list[Tensor] = [value for value in parts if value is not None]
    return [
        (
            name,
            caption,
            bool(drop),
            float(uniform),
            geometry,
            *(hash(value[place].numpy().tobytes()) for value in values),
        )
        for place, (name, caption, drop, uniform, geometry) in enumerate(
            zip(
                batch.names,
                batch.captions,
                batch.drop_image,
                batch.uniform,
                batch.geometries,
                strict=True,
            )
        )
    ]


def real_pictures(folder: Path, number: int, side: int = 96) -> list[Path]:
    """Crops of ComfyUI's template pictures, written as PNG files of different shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(str(resources.files("comfyui_workflow_templates_media_image")))
    files = sorted(path for path in place.rglob("*.webp"))
    out: list[Path] = []
    for path in files:
        if len(out) == number:
            break
        with Image.open(path) as opened:
            if getattr(opened, "n_frames", 1) > 1 or min(opened.size) < 2 * side:
                continue
            cut = opened.convert("RGB").crop((0, 0, side + 16 * (len(out) % 4), side + 8 * (len(out) % 3)))
        out.append(folder / f"{len(out):03d}.png")
        cut.save(out[-1])
    assert len(out) == number, f"only {len(out)} pictures in {place}"
    return out
