"""`train` and `resume`: in this process or in several, with the run's folder locked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..settings.config import Config
from . import launch, loop
from .folder import STARTED, TRAINING, locked, start
from .preflight import preflight
from .resume import GoingOn


def run_training(
    config: Config, arguments: Sequence[str], folder: Path, going_on: GoingOn | None = None, is_new: bool = False
) -> int:
    """Train as the command line says, and return its exit code. arguments: the command line, for other processes.

    Raises ValueError for every fault of the input, the machine or the disk, in a sentence.
    """
    if launch.is_ours():
        return _train(config, folder, going_on, (STARTED,))
    if launch.rank():
        return _train(config, folder, going_on)
    with locked(folder, (STARTED,)):
        preflight(config)
        with locked(folder, (TRAINING,)):
            if is_new:
                start(config)
        if config.run.processes > 1 and not launch.is_launched():
            return launch.launch(config, arguments)
        return _train(config, folder, going_on, (STARTED,))


def _train(config: Config, folder: Path, going_on: GoingOn | None, held: Iterable[str] = ()) -> int:
    reached = loop.train(config, folder, going_on, held)
    launch.note(launch.ENDED, str(reached))
    if launch.rank() == 0:
        if reached < config.run.steps:
            print(f"stopped and saved at step {reached}; go on with: python -m trainer resume {folder}", flush=True)
        else:
            print(f"done: {reached} steps; export with: python -m trainer export {folder} OUT.safetensors", flush=True)
    return 0
