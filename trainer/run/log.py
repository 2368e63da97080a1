"""What a run says of itself: `log.jsonl`, TensorBoard, W&B, and `record.jsonl`: its starts, and what they changed.

A line or a tracker that cannot be written ends no training: it is said, and tried again with the next line.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from ipadapter_core.files.whole import whole

from ..settings.config import Config
from .spare import spared

logger = logging.getLogger(__name__)

LINES, RECORD = "log.jsonl", "record.jsonl"


class Log:
    """Written by the first process. Resumed at a step, lines of later steps are removed: they will be written again.

    Raises ValueError when W&B is asked for and not installed, OSError when the run's folder cannot be written.
    """

    def __init__(self, run: Path, config: Config, step: int) -> None:
        self.run, self.config, self.step = run, config, step
        self.path = run / LINES
        keep_until(self.path, step)
        self.file = self.path.open("ab", buffering=0)
        self.waiting = b""  # lines that could not be written yet
        trackers = config.run.trackers
        self.has_board = "tensorboard" in trackers
        self.purge: int | None = step + 1  # what was shown of later steps is hidden
        self.board: SummaryWriter | None = None
        self.wandb: Any = None
        self.has_wandb = "wandb" in trackers
        if self.has_wandb and importlib.util.find_spec("wandb") is None:
            raise ValueError("run.trackers names wandb, which is not installed: pip install wandb, or remove it")
        with spared("W&B"):
            self._start_wandb()

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """One line of numbers of a step, in every place."""
        self.waiting += json.dumps({"step": step, "time": round(time.time(), 3), **values}).encode() + b"\n"
        self._write()
        with spared("TensorBoard"):
            if self.has_board:
                board = self._take_board()
                for name, value in values.items():
                    board.add_scalar(name, value, step)
                self.board = board
        with spared("W&B"):
            if self._start_wandb():
                self.wandb.log(dict(values), step=step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """A picture of a step, for the trackers."""
        with spared("TensorBoard"):
            if self.has_board:
                board = self._take_board()
                board.add_image(name, np.asarray(picture), step, dataformats="HWC")
                self.board = board
        with spared("W&B"):
            if self._start_wandb():
                import wandb

                self.wandb.log({name: wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """Write what waits and close everything, as far as that can be done."""
        if self.waiting:
            self._write()
        with spared("the log"):
            self.file.close()
        with spared("TensorBoard"):
            if self.board:
                self.board.close()
        with spared("W&B"):
            if self.wandb:
                self.wandb.finish()

    def _write(self) -> None:
        try:
            while self.waiting:
                self.waiting = self.waiting[self.file.write(self.waiting) :]
        except OSError as error:
            logger.warning("%s cannot be written (%s): the training goes on, its lines wait", self.path, error.strerror)

    def _take_board(self) -> SummaryWriter:
        """The writer, to be put back after a use without a fault: one that has failed stays so, and is made anew."""
        board, self.board = self.board, None
        if board is None:
            board = SummaryWriter(str(self.run / "tensorboard"), purge_step=self.purge)
            self.purge = None
        return board

    def _start_wandb(self) -> bool:
        """Whether W&B takes numbers, started if it is not yet."""
        if not self.has_wandb or self.wandb:
            return self.has_wandb
        import wandb

        name = self.run.resolve().name  # is the run's id, so that a resumed run goes on in the same chart
        self.wandb = wandb.init(
            project=self.config.run.project, dir=str(self.run), id=name, name=name, resume="allow",
            config=dataclasses.asdict(self.config),
        )  # fmt: skip
        return True


def record(run: Path, **values: Any) -> None:
    """Add a line to the run's record of its starts: when, from which step, and what was changed."""
    with spared(RECORD), (run / RECORD).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")


def has_held_out(run: Path, step: int) -> bool:
    """Whether a run's log has the held-out loss of a step."""
    try:
        lines = (run / LINES).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any('"held_out_loss"' in line and _step_of(line) == step for line in lines)


def keep_until(path: Path, step: int) -> None:
    """Keep a log's whole lines up to a step; what a kill has cut off is dropped."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
    with whole(path) as part:
        part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
