"""One sample and one batch as they reach the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from ..base.frozen import TextStates


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be used. kind: one word or two, for counts."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Reference:
    """A reference as it was read: RGB, not yet cut, and the identity of its face, [512], raw, where there is one."""

    picture: Image.Image
    identity: Tensor | None = None


@dataclass(frozen=True)
class Item:
    """One sample as a reader gives it, without its random draws: of each pair, raw or cached, one is None.

    pixels: [3, R, R] or moments: [2, C, h, w]. condition: [3, S, S] or features: [E] or [S, F].
    caption or text: [T, D].
    sizes: SDXL's six numbers. identity: [512], raw.
    """

    name: str
    caption: str
    sizes: tuple[int, ...]
    pixels: Tensor | None = None
    moments: Tensor | None = None
    text: TextStates | None = None
    condition: Tensor | None = None
    features: Tensor | None = None
    identity: Tensor | None = None


@dataclass(frozen=True)
class Drawn:
    """An item with its draws.

    uniform: in [0, 1), from which the objective draws the time; of a held-out sample the noisiness of its time.
    skipped: the samples that stood at its position before it and could not be used.
    """

    item: Item
    drop_image: bool
    uniform: float
    noise_seed: int
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class LoadedBatch:
    """What `inputs.Batch` describes. The generators are made from the seeds where the batch is used."""

    names: Sequence[str]
    pixels: Tensor | None
    moments: Tensor | None
    captions: Sequence[str]
    text: TextStates | None
    condition: Tensor | None
    features: Tensor | None
    drop_image: Tensor
    uniform: Tensor
    sizes: Tensor
    identities: Tensor | None = None
    noise_seeds: Sequence[int] = ()
    skipped: Sequence[Skipped] = ()
    generators: Sequence[torch.Generator] = field(default=())

    def __len__(self) -> int:
        return len(self.names)


def collate(drawn: Sequence[Drawn]) -> LoadedBatch:
    """Stack samples to a batch."""
    items = [one.item for one in drawn]
    return LoadedBatch(
        names=[item.name for item in items],
        pixels=_stacked([item.pixels for item in items]),
        moments=_stacked([item.moments for item in items]),
        captions=[item.caption for item in items],
        text=_stacked_text([item.text for item in items]),
        condition=_stacked([item.condition for item in items]),
        features=_stacked([item.features for item in items]),
        drop_image=torch.tensor([one.drop_image for one in drawn]),
        uniform=torch.tensor([one.uniform for one in drawn], dtype=torch.float64),
        sizes=torch.tensor([item.sizes for item in items]),
        identities=_stacked([item.identity for item in items]),
        noise_seeds=[one.noise_seed for one in drawn],
        skipped=[fault for one in drawn for fault in one.skipped],
    )


def _stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    assert len(there) in (0, len(tensors))
    return torch.stack(there) if there else None


def _stacked_text(texts: Sequence[TextStates | None]) -> TextStates | None:
    there = [text for text in texts if text is not None]
    if not there:
        return None
    states = _stacked([text.states for text in there])
    assert states is not None
    return TextStates(states, _stacked([text.pooled for text in there]))
