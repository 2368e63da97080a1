"""`python -m trainer cache`: compute once what never changes, for every sample and every text of the data.

File by file, each written whole: a run that was killed goes on with the first file that is missing. Several processes
(`accelerate launch -m trainer cache CONFIG`) share the files out. Results are stored in the number format in which the
frozen parts compute, so nothing is lost by storing them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ipadapter_core import Feature, normalised_square

from ..base.device import DTYPES, choose_device
from ..base.encoder import check_encoder
from ..base.files import BaseFiles
from ..base.frozen import Frozen
from ..base.whole import check_base
from ..data.batch import Item, Skipped
from ..data.cached import ZERO
from ..data.cached_rows import SampleRows, sample_rows
from ..data.fingerprint import IDENTITIES, difference, fingerprints
from ..data.pictures import normalised
from ..data.reader import PictureReader
from ..data.report import write_report
from ..data.shards import PART, count_shards, missing_files, read_part, shard_path, shard_rows, write_part
from ..data.sources import describe_source, open_source
from ..settings.config import Config
from ..settings.families import trained_family
from .encoding import Chunk, Chunks, Key, Leaving, Writer, decoded
from .texts import Texts

logger = logging.getLogger(__name__)

REPORT = "skipped.jsonl"
TEXT, SAMPLES, FEATURES = "text", "samples", "features"
OF_SAMPLES = (SAMPLES, "latents", "pooled", "penultimate", IDENTITIES)  # parts with a row for each sample
PIXELS = 2**22  # of the pictures that are encoded at once, where cache.batch_size is 0
MOST = 64  # of them


def build_cache(config: Config, only: Sequence[str] = ()) -> None:
    """Make or complete the cache of data.cache. only: the parts to make; none = all that the training reads.

    Raises ValueError when the folder is not set, holds a cache of something else, or cannot be written.
    """
    Builder(config, int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))).build(only)


class Builder:
    """One process of those that make a cache: of every part it writes the files whose number is its own."""

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
        self.batch_size = config.cache.batch_size or max(1, min(MOST, PIXELS // config.data.resolution**2))

    def build(self, only: Sequence[str] = ()) -> None:
        wanted = fingerprints(self.config, self.source, self.feature)
        self.parts = chosen_parts(tuple(wanted), only, self.feature)
        for part in (name for name in wanted if name in self.parts):  # the samples first, of which all others are
            self._check(part, wanted[part])
        texts = Texts(self.source)
        rows = {part: len(texts) if part == TEXT else len(self.source) for part in self.parts}
        self.shard = {part: self._shard(part, rows[part]) for part in self.parts}
        for part in self.parts:
            made_with = {"rows": rows[part], "shard": self.shard[part], "made with": wanted[part]}
            if not (self.folder / part / PART).exists():
                write_part(self.folder / part, made_with, self.rank)
        with Writer() as writer:
            if TEXT in self.parts:
                self._write_texts(texts, writer)
            self.frozen.parts.release("text_encoders")
            self._write_samples(texts, writer)
        self._report(tuple(wanted))

    def _check(self, part: str, values: dict[str, Any]) -> None:
        """Raises ValueError when a part is a cache of something else."""
        made = read_part(self.folder / part)
        if made and (differs := difference(made["made with"], values)):
            raise ValueError(
                f"{self.folder} holds another cache: of its {part} the {differs}; "
                f"give another data.cache, or delete {self.folder / part}"
            )

    def _shard(self, part: str, rows: int) -> int:
        """Rows of a file: as it was begun; all parts but the texts have the same samples in a file of one number."""
        alike = (TEXT,) if part == TEXT else OF_SAMPLES
        made = [found["shard"] for name in alike if (found := read_part(self.folder / name))]
        return int(made[0]) if made else shard_rows(rows)

    def _mine(self, part: str, rows: int) -> Iterable[int]:
        return range(self.rank, count_shards(rows, self.shard[part]), self.num_processes)

    def _path(self, part: str, number: int) -> Path:
        return shard_path(self.folder / part, number)

    def _bar(self, what: str, unit: str, total: int) -> Any:
        return tqdm(total=total, desc=what, unit=unit, disable=self.rank != 0, dynamic_ncols=True)

    def _write_texts(self, texts: Texts, writer: Writer) -> None:
        size, shard, count = self.batch_size, self.shard[TEXT], len(texts)
        numbers = [number for number in self._mine(TEXT, count) if not self._path(TEXT, number).exists()]
        with self._bar("texts", "text", sum(len(_rows(number, shard, count)) for number in numbers)) as bar:
            for number in numbers:
                mine = texts.of(_rows(number, shard, count))
                found: dict[str, Leaving] = {}
                for start in range(0, len(mine), size):
                    for name, values in self.frozen.base.encode_texts(mine[start : start + size]).items():
                        found.setdefault(name, Leaving(self.dtype)).add(values)
                    bar.update(len(mine[start : start + size]))
                writer.write(self._path(TEXT, number), {name: values.all() for name, values in found.items()})

    def _write_samples(self, texts: Texts, writer: Writer) -> None:
        """One pass over the pictures for all parts but the texts, each file's samples last: they complete it."""
        parts = [part for part in self.parts if part != TEXT]
        if not parts:
            return
        count, shard = len(self.source), self.shard[parts[0]]
        missing = {
            number: there
            for number in self._mine(parts[0], count)
            if (there := [part for part in parts if not self._path(part, number).exists()])
        }
        keys: list[Key] = []
        for number in missing:
            rows = _rows(number, shard, count)
            keys += [(number, rows[start : start + self.batch_size]) for start in range(0, len(rows), self.batch_size)]
        asked = {part for there in missing.values() for part in there}
        reader = PictureReader(self.source, self.config.data, self.frozen.encoder_facts if self.feature else None)
        chunks = Chunks(reader, "latents" in asked, bool(self.feature) and self.feature in asked)
        workers = self.config.cache.workers or self.config.data.workers
        loaded = decoded(chunks, keys, workers, self.frozen.device)
        with self._bar("pictures", "sample", sum(len(rows) for _, rows in keys)) as bar:
            for number, of_file in groupby(loaded, key=lambda chunk: chunk.number):
                file = self._encoded(of_file, missing[number], bar)
                self._write_file(number, file, missing[number], texts, writer)

    def _encoded(self, chunks: Iterable[Chunk], parts: Collection[str], bar: Any) -> Encoded:
        """What a file holds of each of these parts."""
        file = Encoded([], Leaving(self.frozen.base.latent_dtype), Leaving(self.dtype))
        for chunk in chunks:
            file.found.extend(chunk.found)
            if "latents" in parts and chunk.pixels is not None:
                pixels = chunk.pixels.to(self.frozen.device, non_blocking=True)
                file.latents.add(self.frozen.base.encode_pictures(normalised(pixels)))
            if self.feature in parts and chunk.conditions is not None:
                squares = chunk.conditions.to(self.frozen.device, non_blocking=True)
                pictures = normalised_square(squares, self.frozen.encoder_facts)
                file.features.add(self.frozen.encoder(pictures, self.feature))
            bar.update(len(chunk.found))
        return file

    def _write_file(self, number: int, file: Encoded, parts: Collection[str], texts: Texts, writer: Writer) -> None:
        self._check_rows(number, file.found)
        usable = [item for item in file.found if isinstance(item, Item)]
        if "latents" in parts:
            writer.write(self._path("latents", number), {"moments": file.latents.all()})
        if self.feature and self.feature in parts:
            tensors = {"features": file.features.all()}
            if number == 0:
                tensors[ZERO] = self._zero_features(self.feature).cpu().to(self.dtype)
            writer.write(self._path(self.feature, number), tensors)
        if IDENTITIES in parts:
            faces = [item.identity for item in usable if item.identity is not None]
            writer.write(self._path(IDENTITIES, number), {IDENTITIES: torch.stack(faces) if faces else torch.zeros(0)})
        if SAMPLES in parts:
            indices = _rows(number, self.shard[SAMPLES], len(self.source))
            captions = [texts.numbers(index) for index in indices]
            writer.write(self._path(SAMPLES, number), *sample_rows(file.found, captions))

    def _check_rows(self, number: int, found: Sequence[Item | Skipped]) -> None:
        """Raises ValueError where other samples can be used than when the samples were cached."""
        if not self._path(SAMPLES, number).exists():
            return
        before = SampleRows(self.folder / SAMPLES)
        first = number * before.shard
        for place, one in enumerate(found):
            if isinstance(before.find(first + place), Skipped) != isinstance(one, Skipped):
                now = f"cannot be used now ({one.reason})" if isinstance(one, Skipped) else "can be used now"
                raise ValueError(
                    f"{one.name} {now}, and it was otherwise when {self.folder} was begun: restore it, or delete the "
                    "cache"
                )

    def _zero_features(self, feature: Feature) -> Tensor:
        """The features of a dropped picture, [1, E] or [1, S, F]."""
        if feature == "pooled":
            return torch.zeros(1, self.frozen.encoder_facts.feature_dim(feature))
        return self.frozen.zero_states()

    def _report(self, parts: Iterable[str]) -> None:
        """Name the samples that were left out, when all processes have written all files of all parts."""
        made = {part: read_part(self.folder / part) for part in parts}
        if not all(found and not missing_files(self.folder / part, found) for part, found in made.items()):
            return
        rows = SampleRows(self.folder / SAMPLES)
        faults = [fault for number in range(rows.count) for fault in rows.faults(number)]
        write_report(self.folder / REPORT, faults)
        logger.info(
            "%s: %d samples, %d of them skipped%s",
            self.folder, len(self.source), len(faults), f" and named in {self.folder / REPORT}" if faults else "",
        )  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """What the samples of a file have become. found: all of them, in order, without their pictures."""

    found: list[Item | Skipped]
    latents: Leaving
    features: Leaving


def chosen_parts(parts: Sequence[str], only: Sequence[str], feature: Feature | None) -> tuple[str, ...]:
    """The parts to make, the samples last: they complete a file. "features" are those that the family reads.

    Raises ValueError for a part that this training does not have.
    """
    names = {FEATURES if part == feature else part: part for part in parts}
    for name in only:
        if name not in names:
            raise ValueError(f"--only {name}: this training's cache has no such part: choose among {', '.join(names)}")
    chosen = [names[name] for name in only] or list(parts)
    return tuple(sorted(chosen, key=lambda part: part == SAMPLES))


def _rows(number: int, shard: int, count: int) -> range:
    """The rows of a file."""
    return range(number * shard, min((number + 1) * shard, count))
