"""Sheets of a result: the best and the worst references of each system, and every n-th of all, as JPEG data."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ipadapter_core.method.picture import square

from .figures import of_references
from .html import jpeg
from .systems import Series
from .work import Job

CELL, GAP = 96, 4  # pixels
BEST, EVERY = 6, 12  # references of a sheet; of the sheet of all systems
RANKED = ("clip_i", "dino_i")  # the first of these that there is says which are best


def best_and_worst(job: Job, series: Series, scores: dict[str, list[list[float | None]]]) -> dict[str, str]:
    """Titles to pictures: a row for each reference, the reference first, then its samples."""
    measure = next((name for name in RANKED if name in scores), None)
    if measure is None:
        return {}
    order = of_references(scores[measure]).argsort(descending=True).tolist()
    count = min(BEST, -(-len(order) // 2))
    return {
        f"{series.name}: best by {measure}": sheet([_row(job, [series], place) for place in order[:count]]),
        f"{series.name}: worst by {measure}": sheet([_row(job, [series], place) for place in order[::-1][:count]]),
    }


def every_nth(job: Job, series: Sequence[Series]) -> tuple[str, str]:
    """A title, and a sheet of references evenly over all: the reference, then the first sample of each system."""
    count = len(job.references)
    step = max(1, count // EVERY)
    places = list(range(0, count, step))[:EVERY]
    names = ", ".join(one.name for one in series)
    return f"every {step}th reference: the reference, {names}", sheet([_row(job, series, place, 1) for place in places])


def sheet(rows: Sequence[Sequence[Image.Image]]) -> str:
    """Rows of pictures as the URI of a JPEG."""
    step = CELL + GAP
    paper = Image.new("RGB", (step * max(map(len, rows)) - GAP, step * len(rows) - GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            paper.paste(square(picture, CELL), (x * step, y * step))
    return jpeg(paper)


def _row(job: Job, series: Sequence[Series], place: int, most: int = 0) -> list[Image.Image]:
    item = job.references.items[place]
    found = [item.picture()]
    for one in series:
        rows = job.store.read_pictures(one, [item])
        assert rows is not None, "all pictures are made"
        found += rows[0][: most or None]
    return found
