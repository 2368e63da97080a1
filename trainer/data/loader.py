"""Batches of a training for one process, from pictures or a cache.

A step's positions are shared out in order: batch `a` of process `r` takes the positions from (a * processes + r) *
batch_size on. What stands at a position is decided by `order` alone, so workers and processes change nothing.
A sample that cannot be used is replaced by another, drawn for its position, and is named in RUN/skipped.jsonl.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ipadapter_core import Encoder, Feature

from ..settings.config import Config
from . import order
from .batch import Batch, Item, Skipped, collate
from .cached import CachedReader, open_cache
from .identity import read_identity
from .noise import draw_noise
from .pictures import Unusable, decode
from .reader import PictureReader, Reader
from .record import Reference, Source, UnreadableError
from .report import SkipReport
from .sets import repeats_of
from .sources import open_source
from .workers import results

logger = logging.getLogger(__name__)

HELD_OUT = -1  # in place of a step, in a key of a held-out sample
ATTEMPTS = 100  # unusable samples in a row before a training gives up
REPORT = "skipped.jsonl"
Key = tuple[int, int]  # step and position in the global batch
Shape = tuple[int, int, int]  # of a sample's latents: C, h, w


@dataclass(frozen=True)
class Fault:
    """An error of the input in a worker, carried to the process that can say it in one sentence."""

    message: str


def open_loader(
    config: Config,
    encoder: Encoder | None,
    feature: Feature | None,
    rank: int = 0,
    num_processes: int = 1,
    latent_shape: Shape | None = None,
) -> Loader:
    """The loader that a config describes, for one of several processes.

    encoder, feature: the image encoder and what is read of it; None for a family that reads none. latent_shape: of the
    base at data.resolution; a cache has it.
    Raises ValueError when the data cannot be opened, or the cache does not fit this training.
    """
    source = open_source(config.data)
    reader: Reader
    if config.data.cache:
        reader = open_cache(config, feature, source)
    else:
        reader = PictureReader(source, config.data, encoder if feature else None)
    return Loader(config, source, reader, rank, num_processes, latent_shape)


class Items(Dataset[Item | Fault | None]):
    """Samples by (step, position); None for a held-out one that cannot be used."""

    def __init__(
        self, config: Config, reader: Reader, latent_shape: Shape | None, repeats: NDArray[np.int64] | None = None
    ) -> None:
        self.config, self.reader, self.latent_shape = config, reader, latent_shape
        self.trained, self.held_out = order.split(config.run.seed, len(reader), config.data.held_out)
        if repeats is not None:  # what is held out is so with all its repeats
            self.trained = np.repeat(self.trained, repeats[self.trained])

    def __getitem__(self, key: Key) -> Item | Fault | None:
        try:
            return self._held_out(key[1]) if key[0] == HELD_OUT else self._trained(*key)
        except ValueError as error:
            return Fault(str(error))

    def _trained(self, step: int, position: int) -> Item:
        config, count = self.config, len(self.trained)
        seed, data = config.run.seed, config.data
        place = order.sample_place(seed, step, position, config.samples_per_step, count)
        draws = order.draws(seed, step, position)
        event = order.drop_event(draws.drop, data.drop_text, data.drop_image, data.drop_both)
        skipped: list[Skipped] = []
        for attempt in range(ATTEMPTS):
            found = self.reader.read(int(self.trained[place]), draws, event in ("text", "both"))
            if isinstance(found, Item):
                found = self._with_noise(found, draws.noise_seed)
                return dataclasses.replace(
                    found, drop_image=event in ("image", "both"), uniform=draws.timestep, skipped=tuple(skipped)
                )
            skipped.append(found)
            place = order.replacement_place(seed, step, position, attempt, count)
        raise ValueError(
            f"{len(skipped)} samples in a row cannot be used, the last is {skipped[-1].name} ({skipped[-1].reason}): "
            f"look at the data with python -m trainer check {data.source or 'CONFIG.toml'}"
        )

    def _held_out(self, position: int) -> Item | None:
        """Fixed noise; noisiness spread evenly over the samples; nothing dropped."""
        draws = order.draws(self.config.run.seed, 0, position, order.HELD_OUT)
        draws = dataclasses.replace(draws, flip=1.0, tags=0)  # seen as they are
        found = self.reader.read(int(self.held_out[position]), draws, False)
        if isinstance(found, Skipped):
            return None
        evenly = (position + 0.5) / len(self.held_out)
        return dataclasses.replace(self._with_noise(found, draws.noise_seed), uniform=evenly)

    def _with_noise(self, found: Item, seed: int) -> Item:
        shape = self.latent_shape if found.moments is None else tuple(found.moments.shape[1:])
        assert shape is not None, "without a cache the loader needs the shape of the base's latents"
        drawn, noise = draw_noise(seed, shape, self.config.optimiser.noise_offset)
        return dataclasses.replace(found, drawn=drawn, noise=noise)


class Loader:
    """A training's batches for one process. Everything is made anew from (seed, step, position): it keeps no state."""

    def __init__(
        self,
        config: Config,
        source: Source,
        reader: Reader,
        rank: int = 0,
        num_processes: int = 1,
        latent_shape: Shape | None = None,
    ) -> None:
        self.config, self.source, self.reader = config, source, reader
        self.samples = Items(config, reader, latent_shape, repeats_of(source))
        self.rank, self.num_processes = rank, num_processes
        self.report = SkipReport(Path(config.run.folder) / REPORT if config.run.folder else None)

    def zero_features(self) -> Tensor | None:
        """What stands for a dropped picture, [1, E] or [1, S, F], where a cache holds it."""
        return self.reader.zero_features() if isinstance(self.reader, CachedReader) else None

    def batches(self, step: int) -> Iterator[Batch]:
        """This process's batches from optimiser step `step` to the last, `optimiser.accumulation` of them a step.

        Raises ValueError when too many samples in a row cannot be used.
        """
        return self._load(self._keys(step))

    def held_out(self) -> Iterator[Batch]:
        """This process's share of the held-out samples: the same noise and noisiness each time, nothing dropped."""
        mine = range(self.rank, len(self.samples.held_out), self.num_processes)
        size = self.config.run.batch_size
        return self._load(
            [[(HELD_OUT, position) for position in mine[start : start + size]] for start in range(0, len(mine), size)]
        )

    def references(self) -> list[Reference]:
        """For the grid, as the encoder's preprocessing gets them: of held-out samples, or of the first."""
        wanted = self.config.run.sample_pictures
        indices = self.samples.held_out if len(self.samples.held_out) else self.samples.trained
        references: list[Reference] = []
        for index in indices[: wanted + ATTEMPTS]:
            if len(references) == wanted:
                break
            try:
                record = self.source.read(int(index))
            except UnreadableError:
                continue
            found = decode(record.image if record.condition is None else record.condition)
            face = read_identity(record.identity) if self.config.data.identity_column else None
            if not isinstance(found, Unusable) and not isinstance(face, Unusable):
                references.append(Reference(found, face))
        return references

    def _keys(self, first: int) -> Iterator[list[Key]]:
        size = self.config.run.batch_size
        for step in range(first, self.config.run.steps):
            for batch in range(self.config.optimiser.accumulation):
                start = (batch * self.num_processes + self.rank) * size
                yield [(step, position) for position in range(start, start + size)]

    def _load(self, keys: Iterable[list[Key]]) -> Iterator[Batch]:
        loaded = DataLoader(
            self.samples,
            batch_sampler=keys,  # any iterable of lists of keys will do
            num_workers=self.config.data.workers,
            collate_fn=_collate,
            pin_memory=self.config.run.device in ("auto", "cuda") and torch.cuda.is_available(),
        )
        with closing(results(loaded)) as batches:
            for batch in batches:
                if isinstance(batch, Fault):
                    raise ValueError(batch.message)
                if batch is None:
                    continue
                self.report.add(batch.skipped)
                yield batch


def _collate(samples: Sequence[Item | Fault | None]) -> Batch | Fault | None:
    for sample in samples:
        if isinstance(sample, Fault):
            return sample
    there = [sample for sample in samples if isinstance(sample, Item)]
    return collate(there) if there else None
