"""The checkpoint with the lowest held-out loss: each checkpoint whose step was validated has its loss beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ipadapter_core.files.whole import whole

from ..settings.config import RunConfig
from . import checkpoint

HELD_OUT = "held-out.json"  # in a checkpoint's folder, written when its step has been validated
BEST = "best"  # in place of a step


def note_loss(run: Path, step: int, loss: float) -> None:
    """Write a step's held-out loss beside its checkpoint, where there is one. Raises OSError when it cannot."""
    place = checkpoint.folder(run) / checkpoint.name(step)
    if place.is_dir() and math.isfinite(loss):
        with whole(place / HELD_OUT) as part:
            part.write_text(json.dumps({"step": step, "held_out_loss": loss}), encoding="utf-8")


def forget_losses(run: Path) -> None:
    """Remove the held-out losses of a run: those of other data are not to be compared with."""
    for step in checkpoint.steps_of(run):
        (checkpoint.folder(run) / checkpoint.name(step) / HELD_OUT).unlink(missing_ok=True)


def held_out_losses(run: Path) -> dict[int, float]:
    """The held-out losses of a run's checkpoints by step, as far as they are known."""
    found = {}
    for step in checkpoint.steps_of(run):
        try:
            values = json.loads((checkpoint.folder(run) / checkpoint.name(step) / HELD_OUT).read_text(encoding="utf-8"))
            found[step] = float(values["held_out_loss"])
        except (OSError, ValueError, KeyError, TypeError):  # not validated, or not whole
            continue
    return found


def best(run: Path) -> int | None:
    """The step of the checkpoint with the lowest held-out loss, the first of equal ones; None where none is known."""
    found = held_out_losses(run)
    return min(found, key=lambda step: (found[step], step), default=None)


def prune(run: Path, settings: RunConfig) -> None:
    """Remove the checkpoints that the config does not keep."""
    kept = best(run) if settings.keep_best else None
    checkpoint.prune(run, settings.keep_last, settings.keep_every_steps, kept)


def is_best(run: Path, loss: float) -> bool:
    """Whether a held-out loss is lower than that of every checkpoint."""
    return math.isfinite(loss) and loss < min(held_out_losses(run).values(), default=math.inf)


def asked_best(run: Path) -> int:
    """The best step. Raises ValueError where no checkpoint has a held-out loss."""
    step = best(run)
    if step is None:
        raise ValueError(
            f"no checkpoint of {run} has a held-out loss, as run.keep_best gives: --from takes one of "
            f"{', '.join(map(str, checkpoint.steps_of(run)))}"
        )
    return step
