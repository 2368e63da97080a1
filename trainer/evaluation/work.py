"""Goes through a part of the references, batch by batch: pictures that are not there are made, then scored.

Batches are dealt to parts in turns. What a batch gives depends on nothing else, so neither parts nor kills change it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from .coco import Item, References
from .draw import Batch, draw
from .judges import Judges
from .protocol import Protocol
from .scores import score
from .store import Store
from .systems import Series

# Of a process that `launch` has started: the one that did, with which it ends, and its number among the others
PARENT, NUMBER = "TRAINER_EVALUATION_PARENT", "TRAINER_EVALUATION_NUMBER"


@dataclass(frozen=True)
class Job:
    """All that a run needs. part: its number and how many there are."""

    protocol: Protocol
    references: References
    series: tuple[Series, ...]
    judges: Judges
    store: Store
    part: tuple[int, int] = (0, 1)

    @property
    def batches(self) -> range:
        return range(-(-len(self.references) // self.protocol.batch))

    @property
    def mine(self) -> list[int]:
        number, count = self.part
        return [batch for batch in self.batches if batch % count == number]

    def items(self, batch: int) -> tuple[Item, ...]:
        start = batch * self.protocol.batch
        return self.references.items[start : start + self.protocol.batch]

    def of(self, series: Series, batch: int) -> tuple[Item, ...]:
        """The batch's references that a series has; the last ones are left out where it has fewer."""
        start = batch * self.protocol.batch
        return self.items(batch)[: max(0, series.references - start)]


@dataclass
class Speed:
    """Seconds and numbers of what was done, for people."""

    drawn: int = 0
    drawing: float = 0.0
    scored: int = 0
    scoring: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.drawn:,} pictures made ({self.drawn / self.drawing:.2f}/s)"] if self.drawn else []
        parts += [f"{self.scored:,} scored ({self.scored / self.scoring:.2f}/s)"] if self.scored else []
        return ", ".join(parts) or "nothing was left to do"


def work(job: Job, is_shown: bool = True) -> Speed:
    """Make and score what this part lacks. Raises ValueError as its parts do; what is made before is kept."""
    speed, encoded = Speed(), Encoded(job)
    missing = {batch: wanted for batch in job.mine if (wanted := _missing(job, batch))}
    total = sum(len(job.of(series, batch)) * series.samples for batch, all_ in missing.items() for series in all_)
    with tqdm(total=total, desc="pictures", unit="picture", disable=not is_shown, dynamic_ncols=True) as bar:
        for number, wanted in missing.items():
            batch = Batch(number * job.protocol.batch, job.items(number), job.protocol.batch)
            for series in wanted:
                if _is_orphan():
                    raise ValueError("the process that started this one has ended: give the command again to go on")
                _one(job, series, number, batch, encoded, speed)
                bar.update(len(job.of(series, number)) * series.samples)
    return speed


def _missing(job: Job, batch: int) -> list[Series]:
    found = []
    for series in job.series:
        items = job.of(series, batch)
        if items and job.store.read_scores(series, batch, items) is None:
            found.append(series)
    return found


def _one(job: Job, series: Series, number: int, batch: Batch, encoded: Encoded, speed: Speed) -> None:
    """One series in one batch."""
    items, began = job.of(series, number), time.perf_counter()
    rows = job.store.read_pictures(series, items)
    if rows is None:
        rows = draw(series, batch, job.protocol)[: len(items)]
        job.store.write_pictures(series, items, rows)
        speed.drawn += len(items) * series.samples
        speed.drawing += time.perf_counter() - began
    began = time.perf_counter()
    texts = None
    if job.judges.has_texts:
        # what a picture is held to: the text that it was given, or without one its reference's caption, as the paper
        named = [series.prompt(batch.start + row, item.caption) if series.is_text else item.caption
                 for row, item in enumerate(items)]  # fmt: skip
        texts = torch.stack([job.judges.embed_text(text) for text in named])
    places = range(batch.start, batch.start + len(items))
    scores = score(
        embed(job.judges, rows, job.protocol.batch),
        encoded.of(list(places)),
        encoded.of([(place - 1) % len(job.references) for place in places]),
        texts,
    )
    job.store.write_scores(series, number, items, scores)
    speed.scored += len(items) * series.samples
    speed.scoring += time.perf_counter() - began


def embed(judges: Judges, rows: Sequence[Sequence[Image.Image]], wanted: int) -> dict[str, Tensor]:
    """Pictures of R references, S of each, to embeddings [R, S, E] by kind; computed as if there were `wanted` rows."""
    count, samples = len(rows), len(rows[0])
    flat = [picture for row in [*rows, *[rows[-1]] * (wanted - count)] for picture in row]
    return {kind: value.view(wanted, samples, -1)[:count] for kind, value in judges.embed(flat).items()}


class Encoded:
    """The references as the judges see them: each is encoded once for all systems, and kept on the disk."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._batch = lru_cache(4)(self._read)

    def of(self, places: Sequence[int]) -> dict[str, Tensor]:
        """[R, E] by kind, of references by their numbers."""
        size = self._job.protocol.batch
        found = [{kind: value[place % size] for kind, value in self._batch(place // size).items()} for place in places]
        return {kind: torch.stack([one[kind] for one in found]) for kind in found[0]}

    def _read(self, batch: int) -> dict[str, Tensor]:
        if (there := self._job.store.read_encoded(batch)) is not None:
            return there
        pictures = [[item.picture()] for item in self._job.items(batch)]
        values = embed(self._job.judges, pictures, self._job.protocol.batch)
        made = {kind: value[:, 0] for kind, value in values.items()}
        self._job.store.write_encoded(batch, made)
        return made


def left(job: Job) -> Iterator[tuple[Series, int]]:
    """What all parts together still have to score: series and batch."""
    for batch in job.batches:
        yield from ((series, batch) for series in _missing(job, batch))


def _is_orphan() -> bool:
    return PARENT in os.environ and os.getppid() != int(os.environ[PARENT])
