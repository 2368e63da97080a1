"""The pictures of a batch of references by one system. Each is a pure function of (seed, reference, sample number).

The layout of a batch is fixed: `batch` references, `samples` pictures of each, in the order of the references; where
references are fewer, the last one is repeated and what it gives is dropped. So a picture does not depend on how far a
run came, on processes, or on how many references there are.

Shapes: R references of a batch, S samples, N = R * S pictures, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ipadapter_core import Feature, nothing
from ipadapter_core import Given as Read

from ..base.processor import AdapterOutput
from ..sampling.sample import Sampling, denoise, to_pictures
from ..step.adapter import adapter_output
from .coco import Item
from .protocol import Protocol
from .systems import Drawn, Series

KEPT_TEXTS = 256  # encoded texts in memory: a batch's are used again at every weight
DECODED = 512 * 512  # pixels that are decoded at once, or one picture


class Batch:
    """References with their pictures, decoded when first used; what an image encoder gives of them is computed once.

    start: the number of the first one. rows: R, as many as the layout has.
    """

    def __init__(self, start: int, items: Sequence[Item], rows: int) -> None:
        self.start, self.items, self.rows = start, items, rows
        self._features: dict[tuple[int, Feature], Tensor] = {}

    @cached_property
    def pictures(self) -> list[Image.Image]:
        return [item.picture() for item in self.items]

    def padded(self) -> list[Image.Image]:
        return self.pictures + [self.pictures[-1]] * (self.rows - len(self.pictures))

    def features(self, system: Drawn, feature: Feature) -> Tensor:
        """[R, ...]. Systems that share an encoder share them."""
        key = (id(system.frozen), feature)
        if key not in self._features:
            self._features[key] = system.frozen.image_features(self.padded(), feature)
        return self._features[key]


def seed_of(seed: int, key: str, sample: int) -> int:
    """Of a picture's noise, 63 bits."""
    words = hashlib.sha256(f"{seed} {key} {sample}".encode()).digest()
    return int.from_bytes(words[:8], "little") >> 1


@torch.no_grad()
def draw(series: Series, batch: Batch, protocol: Protocol) -> list[list[Image.Image]]:
    """S pictures of each of the batch's references."""
    system = series.system
    assert isinstance(system, Drawn)
    base: Any = system.frozen.base  # a key of the texts that are kept
    samples = series.samples
    items = [*batch.items, *[batch.items[-1]] * (batch.rows - len(batch.items))]
    shape = base.latent_shape(system.resolution)
    noise = [_noise(shape, seed_of(protocol.seed, item.key, sample)) for item in items for sample in range(samples)]
    prompts = [series.prompt(batch.start + row, item.caption) for row, item in enumerate(items)]
    texts = [encode(base, text) for text in [protocol.negative] * len(noise)]
    texts += [encode(base, prompt) for prompt in prompts for _ in range(samples)]
    base.install(system.kind, system.adapter is not None and system.adapter.spec.has_lora)
    settings = Sampling(steps=protocol.steps, guidance=protocol.guidance)
    x = denoise(
        base, system.objective, torch.stack(noise),
        {name: torch.cat([text[name] for text in texts]) for name in texts[0]},
        prompted(system, batch, samples).weighted(series.weight), settings, system.resolution,
    )  # fmt: skip
    count, at_once = len(batch.items) * samples, max(1, DECODED // system.resolution**2)
    parts = torch.split(x, at_once)[: -(-count // at_once)]  # whole parts, so that what is dropped changes nothing
    flat = [picture for part in parts for picture in to_pictures(base.decode_latents(part))][:count]
    return [flat[start : start + samples] for start in range(0, count, samples)]


def prompted(system: Drawn, batch: Batch, samples: int) -> AdapterOutput:
    """K' and V' [2N, T, D]: "no picture" N times, then each reference S times. Each is computed once."""
    if system.adapter is None:
        return AdapterOutput({})
    spec = system.adapter.spec
    assert spec.feature is not None and spec.identity is None
    given = Read(batch.features(system, spec.feature))
    empty = nothing(spec, given, system.frozen.zero_states)
    found = adapter_output(system.adapter, empty.joined(given))
    order = [0] * (batch.rows * samples) + [1 + row for row in range(batch.rows) for _ in range(samples)]
    rows = torch.tensor(order, device=given.features.device if given.features is not None else None)
    keys_values = {index: (k[rows], v[rows]) for index, (k, v) in found.keys_values.items()}
    return found._replace(keys_values=keys_values)


@lru_cache(KEPT_TEXTS)
def encode(base: Any, text: str) -> dict[str, Tensor]:
    """One text's states, [1, ...], encoded once however often it is used."""
    states: dict[str, Tensor] = base.encode_texts([text])
    return states


def _noise(shape: tuple[int, int, int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
