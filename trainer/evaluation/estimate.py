"""What a run will take, before it starts: pictures, disk, hours. Speed is measured on a few steps of one batch."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from .draw import Batch, draw
from .systems import Drawn, Series
from .work import Job, embed, left

BYTES_A_PIXEL = 1.6  # of a PNG of a photograph at the compression used; flat pictures take less
TIMED_STEPS = 2


class Estimate(NamedTuple):
    """pictures: to make. scored: to score. bytes: on the disk. seconds: of all parts one after another."""

    pictures: int
    scored: int
    bytes: float
    seconds: float | None

    def told(self, parts: int = 1) -> str:
        """In words; hours are those of one of the parts."""
        words = f"{self.pictures:,} pictures to make and {self.scored:,} to score, about {self.bytes / 1e9:.2g} GB"
        if not self.seconds:
            return words
        return f"{words}, about {readable(self.seconds / parts)} by the speed of the first batch"


def estimate(job: Job, measure: bool = True) -> Estimate:
    """Raises ValueError when the disk has less room than the pictures need."""
    seconds, pictures, scored, size = 0.0, 0, 0, 0.0
    found: dict[Series, list[int]] = {}
    for series, batch in left(job):
        found.setdefault(series, []).append(batch)
    speeds: dict[tuple[str, int], tuple[float, float]] = {}
    for series, batches in found.items():
        counts = {batch: len(job.of(series, batch)) * series.samples for batch in batches}
        there = [batch for batch in batches if job.store.has_pictures(series, job.of(series, batch))]
        wanted = sum(count for batch, count in counts.items() if batch not in there)
        pictures, scored = pictures + wanted, scored + sum(counts.values())
        if not isinstance(series.system, Drawn):
            continue
        size += wanted * BYTES_A_PIXEL * series.system.resolution**2
        if measure and wanted:
            key = (series.system.name, series.samples)
            if key not in speeds:
                speeds[key] = _speed(job, series, batches[0])
            making, scoring = speeds[key]
            seconds += (len(batches) - len(there)) * making + len(batches) * scoring
    free = shutil.disk_usage(_existing(job.store.folder)).free
    if size > free:
        raise ValueError(
            f"{job.store.folder} needs about {size / 1e9:.1f} GB for {pictures:,} pictures, its disk has "
            f"{free / 1e9:.1f} GB: give another --out, fewer --samples, or a --limit"
        )
    return Estimate(pictures, scored, size, seconds if measure else None)


def _speed(job: Job, series: Series, number: int) -> tuple[float, float]:
    """Seconds to make and to score a batch of a series. The first, which loads the parts, is not counted."""
    batch = Batch(number * job.protocol.batch, job.items(number), job.protocol.batch)
    few = [dataclasses.replace(job.protocol, steps=steps) for steps in (1, 1, 1 + TIMED_STEPS)]
    walls = []
    for protocol in few:
        began = time.perf_counter()
        rows = draw(series, batch, protocol)
        walls.append(time.perf_counter() - began)
    step = max(0.0, walls[2] - walls[1]) / TIMED_STEPS
    embed(job.judges, rows[:1], 1)
    began = time.perf_counter()
    embed(job.judges, rows, job.protocol.batch)
    return walls[1] + (job.protocol.steps - 1) * step, time.perf_counter() - began


def readable(seconds: float) -> str:
    """E.g. "3.2 h", "14 min", "20 s"."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.absolute().parent)
