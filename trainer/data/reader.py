"""A source's samples as tensors, decoded and cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL import ImageOps
from torch import Tensor

from ipadapter_core import Encoder, encoder_square

from ..settings.config import DataConfig
from . import order
from .batch import Item, Skipped
from .identity import read_identity
from .pictures import Picture, Target, Unusable, cut_target, decode, decode_sized
from .record import Source, UnreadableError

DRAFT = 2  # times the size that is seen, where data.draft lets JPEG files be decoded smaller


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
        is_mirrored = self.data.flip and draws.flip < 0.5
        found = cut_pictures(record.image, record.condition, self.data, self.encoder, where, is_mirrored)
        if isinstance(found, Unusable):
            return Skipped(record.name, found.kind, found.reason)
        target, condition = found
        face = read_identity(record.identity) if self.data.identity_column else None
        if isinstance(face, Unusable):
            return Skipped(record.name, face.kind, face.reason)
        return Item(
            name=record.name,
            caption="" if drop_text else self._caption(record.captions, draws),
            geometry=target.geometry,
            pixels=target.pixels(),
            condition=condition,
            identity=face,
        )

    def _caption(self, captions: Sequence[str], draws: order.Draws) -> str:
        """One of a sample's captions, its tags in another order where that is asked for."""
        caption = captions[order.choose(draws.caption, len(captions))]
        if not self.data.shuffle_tags or not draws.tags:
            return caption
        tags = [tag.strip() for tag in caption.split(",")]
        return ", ".join(order.shuffled([tag for tag in tags if tag], self.data.keep_tags, draws.tags))


def cut_pictures(
    image: Picture,
    condition: Picture | None,
    data: DataConfig,
    encoder: Encoder | None,
    where: tuple[float, float] | None = None,
    is_mirrored: bool = False,
) -> tuple[Target, Tensor | None] | Unusable:
    """A sample's target, and what the image encoder sees, bytes [3, S, S]; or why either cannot be used."""
    sees_target = encoder is not None and condition is None
    enough = max(data.resolution, encoder.image_size if encoder and sees_target else 0)
    found = decode_sized(image, data.min_side, DRAFT * enough if data.draft else 0)
    if isinstance(found, Unusable):
        return found
    decoded, original = found
    if is_mirrored:
        decoded = ImageOps.mirror(decoded)
    target = cut_target(decoded, data.resolution, where, original)
    if encoder is None:
        return target, None
    seen = decoded if condition is None else decode(condition)
    if isinstance(seen, Unusable):
        return Unusable(seen.kind, f"its condition picture: {seen.reason}")
    if is_mirrored and condition is not None:
        seen = ImageOps.mirror(seen)
    return target, encoder_square(seen, encoder)
