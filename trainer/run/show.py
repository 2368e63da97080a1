"""What is made around a training to be looked at: its log, its grid, its record, its report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ipadapter_core import IPAdapter
from ipadapter_core.files.whole import whole

from ..base.frozen import Frozen
from ..data.loader import Loader
from ..sampling.grid import Grid
from ..settings.config import Config, RunConfig
from ..step.objective import Objective
from . import checkpoint
from .best import forget_losses, note_loss, prune
from .folder import cannot_write, remember
from .log import Log, has_held_out, record
from .parallel.plain import Parallel
from .report import write_report
from .resume import Chosen, GoingOn
from .same import DATA
from .spare import spared

logger = logging.getLogger(__name__)


def open_log(run: Path, config: Config, step: int) -> Log:
    """The run's log, to be written on from `step`. Raises ValueError when it cannot be written."""
    try:
        return Log(run, config, step)
    except OSError as error:
        raise cannot_write(run, error) from error


def open_grid(config: Config, frozen: Frozen, objective: Objective, loader: Loader) -> Grid:
    """The grid with its references and scorer, so that what is wrong with these is known before the first step."""
    references = loader.references()
    if not references:
        logger.warning("no reference for the grid can be read: it is tried again when a grid is due")
    return Grid(config.run, config.data.resolution, frozen, objective, references)


def show_grid(
    grid: Grid, log: Log, loader: Loader, adapter: IPAdapter, step: int, is_asked: Callable[[], bool]
) -> None:
    """Make the grid of a step, write it, and log its scores; nothing when `is_asked` to stop amid it."""
    if not grid.references:
        grid.take(loader.references())
    picture = grid.make(adapter, is_asked)
    if picture is None:
        return
    path = _grid_path(log.run, step)
    path.parent.mkdir(exist_ok=True)
    with whole(path) as part:
        picture.save(part, "PNG")
    log.picture(step, "samples", picture)
    if scores := grid.scores():
        log.numbers(step, scores)


def left_out(run: Path, step: int, parallel: Parallel) -> tuple[bool, bool]:
    """Whether a run's log has no held-out loss of a step, and whether there is no grid of it, to all processes."""
    mine = not has_held_out(run, step), not _grid_path(run, step).exists()
    found: tuple[bool, bool] = parallel.gather_objects(mine)[0]
    return found


def note_held_out(run: Path, settings: RunConfig, step: int, loss: float) -> None:
    """Write a step's held-out loss beside its checkpoint, if it has one, and remove those that are not kept."""
    with spared("the note of the held-out loss"):
        note_loss(run, step, loss)
        prune(run, settings)


def show_sizes(parallel: Parallel) -> None:
    """Say how much of the optimiser's state each process holds. Every process must call it."""
    sizes = parallel.gather_objects(parallel.state_bytes())
    logger.info(
        "optimiser state: %s bytes on processes 0 to %d", ", ".join(f"{size:,}" for size in sizes), len(sizes) - 1
    )


def show_report(run: Path) -> None:
    """Write the run's report anew; its faults end no training."""
    with spared("the report"):
        write_report(run)


def note_start(
    run: Path, config: Config, step: int, chosen: Chosen | None, going_on: GoingOn, made_with: Mapping[str, Any]
) -> None:
    """Note a start and what it changes in the run's record; what was accepted is what later resumes start from."""
    changes = chosen.changes if chosen else {}
    if DATA in changes:
        with spared("forgetting the held-out losses of other data"):
            forget_losses(run)
    if going_on.remember:
        remember(going_on.remember, run)
    for key, (before, after) in changes.items():
        logger.info("from step %d on %s is %s (was %s)", step, key, after, before)
    record(
        run, step=step, steps=config.run.steps, processes=config.run.processes, changed=changes,
        aside=chosen.aside if chosen else [], made_with=dict(made_with),
    )  # fmt: skip


def _grid_path(run: Path, step: int) -> Path:
    return run / "samples" / f"{checkpoint.name(step)}.png"
