"""What a run says of itself: `log.jsonl`, TensorBoard, W&B."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from ipadapter_core.files.whole import whole

from ..settings.config import Config

LINES = "log.jsonl"


class Log:
    """Written by the first process. Resumed at a step, lines of later steps are removed: they will be written again.

    Raises ValueError when W&B is asked for and not installed.
    """

    def __init__(self, run: Path, config: Config, step: int) -> None:
        self.path = run / LINES
        keep_until(self.path, step)
        self.file = self.path.open("a", encoding="utf-8")
        trackers = config.run.trackers
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1) if "tensorboard" in trackers else None
        self.wandb = _start_wandb(run, config) if "wandb" in trackers else None

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """One line of numbers of a step, in every place."""
        self.file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
        self.file.flush()
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        if self.wandb:
            self.wandb.log(dict(values), step=step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """A picture of a step, for the trackers."""
        if self.board:
            self.board.add_image(name, np.asarray(picture), step, dataformats="HWC")
        if self.wandb:
            import wandb

            self.wandb.log({name: wandb.Image(picture)}, step=step)

    def close(self) -> None:
        self.file.close()
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish()


def keep_until(path: Path, step: int) -> None:
    """Keep a log's whole lines up to a step; what a kill has cut off is dropped."""
    if not path.exists():
        return
    kept = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if (found := _step_of(line)) is not None and found <= step
    ]
    with whole(path) as part:
        part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except json.JSONDecodeError:
        return None


def _start_wandb(run: Path, config: Config) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError("run.trackers names wandb, which is not installed: pip install wandb, or remove it") from error
    # the folder's name is the run's id, so that a resumed run goes on in the same chart
    return wandb.init(
        project=config.run.project, dir=str(run), id=run.resolve().name, name=run.resolve().name, resume="allow",
        config=dataclasses.asdict(config),
    )  # fmt: skip
