"""A run is a folder: its config, log, pictures and checkpoints. Starting one and resuming one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..settings.config import Config, rescale
from ..settings.load import load_config, save_config
from . import checkpoint

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG = "config.toml"
LOCK = ".lock"


def start(config: Config) -> Path:
    """Make a new run's folder and write its config. Several processes may call it at once.

    Raises ValueError when the folder is not set, cannot be written, or holds another run.
    """
    if not config.run.folder:
        raise ValueError("run.folder is not set: give the folder that the run writes to, or --set run.folder=...")
    run = Path(config.run.folder)
    if checkpoint.latest(run):
        raise ValueError(
            f"{run} already holds a run: go on with `python -m trainer resume {run}`, or choose another run.folder"
        )
    _writable(run)
    save_config(config, run / CONFIG)
    return run


def resume(run: Path, overrides: Iterable[str] = (), processes: int | None = None) -> Config:
    """The config of a run to go on with, on another number of processes if asked. Its config is not rewritten.

    Raises ValueError when the folder is no run, or an override changes what the run is.
    """
    if not (run / CONFIG).is_file():
        raise ValueError(f"{run} is no run (it has no {CONFIG}): give the folder that `train` wrote to")
    config = load_config(run / CONFIG, [*overrides, f"run.folder={run}"])
    launched = int(os.environ.get("WORLD_SIZE", "0"))
    processes = processes or launched or config.run.processes
    if processes != config.run.processes:
        config = rescale(config, processes)
    _writable(run)
    return config


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Inside `with`, no other process trains in the run's folder; it is given back when the process ends, however.

    Raises ValueError when another one does.
    """
    if fcntl is None:
        yield
        return
    with (run / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process is training in {run}: wait until it has stopped, or choose another run.folder"
            ) from error
        yield


def _writable(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise ValueError(
            f"{run} cannot be written ({error.strerror}): give another run.folder, or change its permissions"
        ) from error
