"""One sample and one batch as they reach the loop.

Shapes: B batch, H and W pixels, R resolution, C latent channels, h and w latent height and width, S the image encoder's
size or sequence, E and F width of its pooled embedding and its hidden states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .geometry import Geometry


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be used. kind: one word or two, for counts."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Item:
    """One sample: what a reader gives, and the draws that the loader adds.

    Of each pair, raw or cached, one is None. pixels: bytes [3, R, R], or moments: [2, C, h, w]. condition: bytes
    [3, S, S], or features: [E] or [S, F]. caption, or texts: what a base conditions on, by its names.
    identity: [512], raw. uniform: in [0, 1), from which the objective draws the time; of a held-out sample the
    noisiness of its time. drawn, noise: [C, h, w], as `draw_noise` gives them. skipped: the samples that stood at its
    position before it and could not be used.
    """

    name: str
    caption: str
    geometry: Geometry
    pixels: Tensor | None = None
    moments: Tensor | None = None
    texts: dict[str, Tensor] | None = None
    condition: Tensor | None = None
    features: Tensor | None = None
    identity: Tensor | None = None
    drop_image: bool = False
    uniform: float = 0.0
    drawn: Tensor | None = None
    noise: Tensor | None = None
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What the loader gives for one process and one batch. Of a raw part and its cached result one is there.

    What is cached is in the number format of the cache; pictures are bytes, which `normalised` and `normalised_square`
    make numbers of.

    names: for messages. pixels: [B, 3, H, W]. moments: [B, 2, C, h, w] as a base's `encode_pictures` gives.
    captions: "" where the text is dropped. texts: what they condition on, the empty caption where dropped, [B, ...].
    condition: [B, 3, S, S]. features: [B, E] or [B, S, F], as if no picture were dropped.
    drop_image: [B], where the picture is dropped. uniform: [B], fp64. drawn: [B, C, h, w], fp32, what latents are drawn
    with; noise: the same, its offset included. identities: [B, 512], raw, where the data has them.
    """

    names: Sequence[str]
    pixels: Tensor | None
    moments: Tensor | None
    captions: Sequence[str]
    texts: dict[str, Tensor] | None
    condition: Tensor | None
    features: Tensor | None
    drop_image: Tensor
    uniform: Tensor
    drawn: Tensor
    noise: Tensor
    geometries: Sequence[Geometry]
    identities: Tensor | None = None
    skipped: Sequence[Skipped] = ()

    def __len__(self) -> int:
        return len(self.names)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which a GPU copies while all else goes on; a DataLoader asks for it."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same on a device, but for `drop_image` and `uniform`: what is decided by them is decided on the CPU."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return dataclasses.replace(moved, drop_image=self.drop_image, uniform=self.uniform)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        if self.texts is not None:
            changed["texts"] = {name: change(value) for name, value in self.texts.items()}
        return dataclasses.replace(self, **changed)


def collate(items: Sequence[Item]) -> Batch:
    """Stack samples to a batch."""
    return Batch(
        names=[item.name for item in items],
        pixels=stacked([item.pixels for item in items]),
        moments=stacked([item.moments for item in items]),
        captions=[item.caption for item in items],
        texts=_stacked_by_name([item.texts for item in items]),
        condition=stacked([item.condition for item in items]),
        features=stacked([item.features for item in items]),
        drop_image=torch.tensor([item.drop_image for item in items]),
        uniform=torch.tensor([item.uniform for item in items], dtype=torch.float64),
        drawn=torch.stack([item.drawn for item in items if item.drawn is not None]),
        noise=torch.stack([item.noise for item in items if item.noise is not None]),
        geometries=[item.geometry for item in items],
        identities=stacked([item.identity for item in items]),
        skipped=[fault for item in items for fault in item.skipped],
    )


def stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """One tensor of all; None where there is none of any."""
    there = [tensor for tensor in tensors if tensor is not None]
    assert len(there) in (0, len(tensors))
    return torch.stack(there) if there else None


def _stacked_by_name(texts: Sequence[dict[str, Tensor] | None]) -> dict[str, Tensor] | None:
    there = [text for text in texts if text is not None]
    assert len(there) in (0, len(texts))
    return {name: torch.stack([text[name] for text in there]) for name in there[0]} if there else None
