"""What a run or a cache is doing, by its own files; and the process that does it, held still while that is looked at.

A run's steps are chosen so that a save is never due with anything else. Its log has a line for a step before what is
due after it begins, and one for a validation that has ended.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.support import runs
from tests.support.kill_report import SAVE_EVERY_STEPS
from trainer.run import checkpoint
from trainer.run.log import LINES
from trainer.settings.config import Config

DUE = {"save_every_steps": SAVE_EVERY_STEPS, "validate_every_steps": 6, "sample_every_steps": 10}
PATIENCE = 600  # seconds for a run to reach a moment, or to end
LINE_BYTES = 4096  # the log's last line is shorter


def of_run(config: Config, since: float) -> tuple[str, int]:
    """ "train", "save", "validation" or "grid", and the newest logged step; "" where its files do not tell.

    since: when the run was started; what is older in its log is of the start before.
    """
    run, place = config.run, Path(config.run.folder)
    line = _last_line(place)
    if not line or line["time"] < since:
        return "", 0
    step, is_validated = line["step"], "held_out_loss" in line
    if step % run.save_every_steps == 0:
        return ("save" if any(checkpoint.folder(place).glob(".step-*.part")) else ""), step
    if step % run.validate_every_steps == 0 and not is_validated:
        return "validation", step
    if step % run.sample_every_steps == 0:
        return ("" if (place / "samples" / f"{checkpoint.name(step)}.png").exists() else "grid"), step
    return ("" if is_validated else "train"), step


def shards(cache: Path) -> int:
    """The whole files of a cache."""
    return len(list(cache.glob("*/0*.safetensors")))


def held_at(process: subprocess.Popen[str], moment: Callable[[], bool]) -> psutil.Process:
    """The process that trains and saves, stopped (SIGSTOP) in a moment that still holds when it stands."""
    began, first = time.monotonic(), None
    while True:
        assert process.poll() is None, f"the run ended before it could be killed: {process.communicate()[0]}"
        assert time.monotonic() - began < PATIENCE, "the run did not reach the moment of its kill"
        if not moment():
            time.sleep(0.001)
            continue
        first = first or runs.ranks(process)[0]
        first.suspend()
        while first.status() != psutil.STATUS_STOPPED:
            time.sleep(0.0005)
        if moment():
            return first
        first.resume()


def _last_line(place: Path) -> dict[str, Any]:
    """The log's last line; empty where there is none, or it is not whole."""
    try:
        with (place / LINES).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LINE_BYTES))
            found: dict[str, Any] = json.loads(file.read().splitlines()[-1])
    except (FileNotFoundError, IndexError, ValueError):
        return {}
    return found
