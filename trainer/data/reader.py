"""A source's samples as tensors, decoded and cut."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ipadapter_core import Encoder, encoder_square

from ..settings.config import DataConfig
from . import order
from .batch import Item, Skipped
from .identity import read_identity
from .pictures import Picture, Target, Unusable, cut_target, decode
from .record import Source, UnreadableError


class Reader(Protocol):
    """Samples by index as tensors; from pictures here, from a cache in `cached.py`."""

    def __len__(self) -> int: ...

    def read(self, index: int, draws: order.Draws, drop_text: bool) -> Item | Skipped:
        """The sample at `index` with one of its captions, or why it cannot be used."""
        ...


class PictureReader:
    """Decodes pictures at each read. encoder: None where no image encoder sees them."""

    def __init__(self, source: Source, data: DataConfig, encoder: Encoder | None) -> None:
        self.source, self.data, self.encoder = source, data, encoder

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, draws: order.Draws, drop_text: bool) -> Item | Skipped:
        try:
            record = self.source.read(index)
        except UnreadableError as fault:
            return fault.skipped
        where = (draws.crop_x, draws.crop_y) if self.data.crop == "random" else None
        found = cut_pictures(record.image, record.condition, self.data, self.encoder, where)
        if isinstance(found, Unusable):
            return Skipped(record.name, found.kind, found.reason)
        target, condition = found
        face = read_identity(record.identity) if self.data.identity_column else None
        if isinstance(face, Unusable):
            return Skipped(record.name, face.kind, face.reason)
        return Item(
            name=record.name,
            caption="" if drop_text else record.captions[order.choose(draws.caption, len(record.captions))],
            geometry=target.geometry,
            pixels=target.pixels(),
            condition=condition,
            identity=face,
        )


def cut_pictures(
    image: Picture,
    condition: Picture | None,
    data: DataConfig,
    encoder: Encoder | None,
    where: tuple[float, float] | None = None,
) -> tuple[Target, Tensor | None] | Unusable:
    """A sample's target, and what the image encoder sees, bytes [3, S, S]; or why either cannot be used."""
    decoded = decode(image, data.min_side)
    if isinstance(decoded, Unusable):
        return decoded
    if encoder is None:
        return cut_target(decoded, data.resolution, where), None
    seen = decoded if condition is None else decode(condition)
    if isinstance(seen, Unusable):
        return Unusable(seen.kind, f"its condition picture: {seen.reason}")
    return cut_target(decoded, data.resolution, where), encoder_square(seen, encoder)
