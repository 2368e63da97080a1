"""`python -m trainer cache`: compute once what never changes, for every sample and every text of the data.

Shard by shard, each written whole: a run that was killed goes on with the first shard that is missing. Several
processes (`accelerate launch -m trainer cache CONFIG`) share the shards out. Results are stored in the number format
in which the frozen parts compute, so nothing is lost by storing them.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ipadapter_core import Feature, normalised_square

from ..base.device import DTYPES, choose_device
from ..base.encoder import check_encoder
from ..base.files import BaseFiles
from ..base.frozen import Frozen
from ..base.whole import check_base
from ..data import order
from ..data.batch import Item, Skipped
from ..data.cached import EMPTY, ZERO
from ..data.fingerprint import IDENTITIES, difference, fingerprints
from ..data.pictures import normalised
from ..data.reader import PictureReader
from ..data.record import Source, UnreadableError
from ..data.report import write_report
from ..data.shards import SHARD, Shards, count_shards, read_part, shard_path, write_part, write_shard
from ..data.sources import describe_source, open_source
from ..data.workers import start_worker
from ..settings.config import Config
from ..settings.families import trained_family

logger = logging.getLogger(__name__)

REPORT = "skipped.jsonl"
FIRST = order.Draws(0.0, 0.0, 0.0, 0.0, 0.0, 0)  # nothing of a cached picture is drawn


def build_cache(config: Config) -> None:
    """Make or complete the cache of data.cache.

    Raises ValueError when the folder is not set, holds a cache of something else, or cannot be written.
    """
    Builder(config, int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))).build()


class Builder:
    """One process of those that make a cache: of every part it writes the shards whose number is its own."""

    def __init__(self, config: Config, rank: int = 0, num_processes: int = 1) -> None:
        if not config.data.cache:
            raise ValueError("data.cache is not set: give the folder of the cache, or --set data.cache=...")
        self.config, self.rank, self.num_processes = config, rank, num_processes
        self.folder = Path(config.data.cache)
        check_base(BaseFiles(config.model))
        self.source = open_source(config.data)
        for line in describe_source(self.source) if rank == 0 else ():
            logger.info("%s", line)
        self.feature = trained_family(config.adapter.family)[0].feature
        if self.feature:
            check_encoder(config.model.encoder, config.model.encoder_architecture)
        device = choose_device(config.run.device)
        if device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        self.dtype = DTYPES[config.run.precision]
        self.frozen = Frozen(config.model, device, self.dtype)

    def build(self) -> None:
        wanted = fingerprints(self.config, self.source, self.feature)
        # samples last: they complete a shard
        self.parts = (*(part for part in wanted if part not in ("text", "samples")), "samples")
        for part, values in wanted.items():
            made = read_part(self.folder / part)
            if made and (differs := difference(made["made with"], values)):
                raise ValueError(
                    f"{self.folder} holds another cache: of its {part} the {differs}; "
                    f"give another data.cache, or delete {self.folder / part}"
                )
        texts = Texts(self.source)
        for part, values in wanted.items():
            rows = len(texts) if part == "text" else len(self.source)
            write_part(self.folder / part, {"rows": rows, "made with": values}, self.rank)
        self._write_texts(texts)
        self.frozen.parts.release("text_encoders")
        self._write_samples(texts)
        self._report()

    def _mine(self, parts: tuple[str, ...], rows: int, what: str) -> Iterator[int]:
        """The numbers of my shards that are missing in one of these parts, with a progress bar."""
        numbers = range(self.rank, count_shards(rows), self.num_processes)
        for number in tqdm(numbers, desc=what, unit="shard", disable=self.rank != 0, dynamic_ncols=True):
            if not all(self._path(part, number).exists() for part in parts):
                yield number

    def _path(self, part: str, number: int) -> Path:
        return shard_path(self.folder / part, number)

    def _write_texts(self, texts: Texts) -> None:
        size = self.config.run.batch_size
        for number in self._mine(("text",), len(texts), "texts"):
            mine = texts.of(range(number * SHARD, min((number + 1) * SHARD, len(texts))))
            found = [self.frozen.base.encode_texts(mine[start : start + size]) for start in range(0, len(mine), size)]
            tensors = {name: torch.cat([texts_of[name] for texts_of in found]) for name in found[0]}
            write_shard(self._path("text", number), stored(tensors, self.dtype))

    def _write_samples(self, texts: Texts) -> None:
        """One pass over the pictures for all parts but the texts, each shard's samples last: they complete it."""
        for number in self._mine(self.parts, len(self.source), "pictures"):
            indices = range(number * SHARD, min((number + 1) * SHARD, len(self.source)))
            missing = {part for part in self.parts if not self._path(part, number).exists()}
            found = list(self._read(indices))
            usable = [item for item in found if isinstance(item, Item)]
            if "latents" in missing:
                pixels = [item.pixels for item in usable if item.pixels is not None]
                moments = self._in_batches(pixels, self._moments)
                write_shard(self._path("latents", number), stored({"moments": moments}, self.frozen.base.latent_dtype))
            if self.feature and self.feature in missing:
                conditions = [item.condition for item in usable if item.condition is not None]
                tensors = {"features": self._in_batches(conditions, self._features)}
                if number == 0:
                    tensors[ZERO] = self._zero_features(self.feature)
                write_shard(self._path(self.feature, number), stored(tensors, self.dtype))
            if IDENTITIES in missing:
                faces = [item.identity for item in usable if item.identity is not None]
                stacked = torch.stack(faces) if faces else torch.zeros(0)
                write_shard(self._path(IDENTITIES, number), {IDENTITIES: stacked})
            if "samples" in missing:
                sizes = torch.tensor([item.geometry for item in usable], dtype=torch.int64).view(-1, 6)
                write_shard(
                    self._path("samples", number),
                    {"sizes": sizes},
                    rows(found, [texts.numbers(index) for index in indices]),
                )

    def _read(self, indices: range) -> Iterator[Item | Skipped]:
        encoder = self.frozen.encoder_facts if self.feature else None
        pictures = Pictures(PictureReader(self.source, self.config.data, encoder))
        workers = self.config.data.workers
        loaded = DataLoader(
            pictures, batch_size=None, sampler=indices, num_workers=workers, worker_init_fn=start_worker
        )
        for found in loaded:
            if isinstance(found, ValueError):
                raise found
            yield found

    def _in_batches(self, values: list[Tensor], encode: Callable[[Tensor], Tensor]) -> Tensor:
        """A shard's values, encoded in batches of run.batch_size from its first on."""
        size = self.config.run.batch_size
        out = [encode(torch.stack(values[start : start + size])).cpu() for start in range(0, len(values), size)]
        return torch.cat(out) if out else torch.zeros(0)

    def _zero_features(self, feature: Feature) -> Tensor:
        """The features of a dropped picture, [1, E] or [1, S, F]."""
        if feature == "pooled":
            return torch.zeros(1, self.frozen.encoder_facts.feature_dim(feature))
        return self.frozen.zero_states()

    def _moments(self, pixels: Tensor) -> Tensor:
        return self.frozen.base.encode_pictures(normalised(pixels.to(self.frozen.device)))

    def _features(self, condition: Tensor) -> Tensor:
        assert self.feature is not None
        squares = normalised_square(condition.to(self.frozen.device), self.frozen.encoder_facts)
        features: Tensor = self.frozen.encoder(squares, self.feature)
        return features

    def _report(self) -> None:
        """Name the samples that were left out, when all processes have written their shards."""
        shards, numbers = Shards(self.folder / "samples"), range(count_shards(len(self.source)))
        if not all(self._path(part, number).exists() for part in self.parts for number in numbers):
            return
        faults = []
        for number in numbers:
            rows = shards.metadata(number)
            faults += [Skipped(rows["name"][int(place)], *fault) for place, fault in rows["fault"].items()]
        write_report(self.folder / REPORT, faults)
        logger.info(
            "%s: %d samples, %d of them skipped%s",
            self.folder, len(self.source), len(faults), f" and named in {self.folder / REPORT}" if faults else "",
        )  # fmt: skip


class Texts:
    """Every text once, by the order in which the data has them; the empty text is number 0."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._number: dict[bytes, int] = {_digest(""): EMPTY}
        first = [-1]
        for index in tqdm(range(len(source)), desc="reading captions", unit="sample", leave=False, dynamic_ncols=True):
            for text in self._captions(index):
                if self._number.setdefault(_digest(text), len(first)) == len(first):
                    first.append(index)
        self._first = np.array(first)  # the sample that has a text first

    def _captions(self, index: int) -> tuple[str, ...]:
        """A sample's captions; the empty one where they cannot be read: the sample is skipped and named later."""
        try:
            return self.source.captions(index)
        except UnreadableError:
            return ("",)

    def __len__(self) -> int:
        return len(self._first)

    def numbers(self, index: int) -> list[int]:
        """The numbers of a sample's captions."""
        return [self._number[_digest(text)] for text in self._captions(index)]

    def of(self, numbers: range) -> list[str]:
        """The texts of these numbers."""
        return [self._text(number) for number in numbers]

    def _text(self, number: int) -> str:
        if number == EMPTY:
            return ""
        captions = self._captions(int(self._first[number]))
        return next(text for text in captions if self._number[_digest(text)] == number)


class Pictures(Dataset[Item | Skipped | ValueError]):
    """A reader's samples by index, for a DataLoader; an error of the input is carried as a value."""

    def __init__(self, reader: PictureReader) -> None:
        self.reader = reader

    def __getitem__(self, index: int) -> Item | Skipped | ValueError:
        try:
            return self.reader.read(index, FIRST, drop_text=False)
        except ValueError as error:
            return error


def stored(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors in the number format in which they were computed."""
    return {name: value.cpu().to(dtype) for name, value in tensors.items()}


def rows(found: list[Item | Skipped], captions: list[list[int]]) -> dict[str, Any]:
    """What a shard's metadata says of its samples, in order; `row` is None where a sample cannot be used."""
    usable = iter(range(len(found)))
    return {
        "name": [one.name for one in found],
        "row": [next(usable) if isinstance(one, Item) else None for one in found],
        "captions": captions,
        "fault": {str(place): [one.kind, one.reason] for place, one in enumerate(found) if isinstance(one, Skipped)},
    }


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
