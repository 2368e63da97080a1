"""Choosing the checkpoint that a run goes on from: the newest good one, or one that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..settings.config import Config
from . import checkpoint
from .best import BEST, asked_best
from .same import changes
from .sums import DamagedError

Asked = int | Literal["best"] | None  # a step, the one with the lowest held-out loss, or the newest good one

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoingOn:
    """How a run is gone on with. from_step: of the checkpoint, or the best one; None = the newest good one.

    takes_changed_data: other samples than before are no fault. remember: the config that later resumes start from.
    """

    from_step: Asked = None
    takes_changed_data: bool = False
    remember: Config | None = None


@dataclass(frozen=True)
class Chosen:
    """A checkpoint to go on from, what is another value from here on, and the checkpoints that were set aside."""

    path: Path
    changes: dict[str, list[Any]] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)


def choose(run: Path, going_on: GoingOn, wanted: Mapping[str, Any], now: Mapping[str, Any]) -> Chosen | None:
    """The checkpoint, None where there is none yet; later ones, and damaged ones, are set aside, never removed.

    wanted, now: fixed values and contents of this training, as `same.changes` takes them.
    Raises ValueError when none is good, the one asked for is not there or damaged, or it is of another training.
    """
    steps = checkpoint.steps_of(run)
    if going_on.from_step is None and not steps:
        return None
    step = _newest_good(run, steps) if going_on.from_step is None else _asked(run, steps, going_on.from_step)
    path = checkpoint.folder(run) / checkpoint.name(step)
    found = changes(path.name, checkpoint.settings_of(path), wanted, now, going_on.takes_changed_data)
    aside = [checkpoint.set_aside(run, later).name for later in steps if later > step]
    if aside:
        logger.warning("later checkpoints are kept under other names: %s", ", ".join(aside))
    return Chosen(path, found, aside)


def find(run: Path, asked: Asked = None) -> Path | None:
    """A run's checkpoint: its newest good one, of a step, or the best one; None where there is none at all.

    Raises ValueError when all are damaged, or the one asked for is not there or damaged.
    """
    steps = checkpoint.steps_of(run)
    if not steps:
        return None
    step = _newest_good(run, steps) if asked is None else _asked(run, steps, asked)
    return checkpoint.folder(run) / checkpoint.name(step)


def _newest_good(run: Path, steps: list[int]) -> int:
    for step in reversed(steps):
        try:
            checkpoint.check(checkpoint.folder(run) / checkpoint.name(step))
        except DamagedError as error:
            logger.warning("%s; it is passed over", str(error).rpartition(":")[0])
        else:
            return step
    raise ValueError(f"all checkpoints of {run} are damaged ({len(steps)}): restore one, or start the run again")


def _asked(run: Path, steps: list[int], asked: int | str) -> int:
    step = asked_best(run) if asked == BEST else asked
    if step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise ValueError(f"{run} has no checkpoint of step {step}: --from takes one of {there}")
    checkpoint.check(checkpoint.folder(run) / checkpoint.name(step))
    return step
