"""A run is a folder: its config, log, pictures and checkpoints. Starting one and resuming one."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ..settings.config import Config, rescale
from ..settings.load import load_config, save_config
from . import checkpoint

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

CONFIG = "config.toml"
# Held by whoever has started a run: its launcher, or the one process; and by the process that trains and saves, which
# may live on for a moment when its launcher is killed. Nobody writes in a run's folder without both.
STARTED, TRAINING = ".lock", ".lock-training"
LOCKS = (STARTED, TRAINING)
_held: set[IO[str]] = set()


def prepare(config: Config) -> Path:
    """Make a run's folder, or see that there is one. Raises ValueError when it is not set or cannot be written."""
    if not config.run.folder:
        raise ValueError("run.folder is not set: give the folder that the run writes to, or --set run.folder=...")
    run = Path(config.run.folder)
    _writable(run)
    return run


def start(config: Config) -> Path:
    """Make a new run's folder and write its config.

    Raises ValueError when the folder is not set, cannot be written, or holds another run.
    """
    run = prepare(config)
    if checkpoint.latest(run):
        raise ValueError(
            f"{run} already holds a run: go on with `python -m trainer resume {run}`, or choose another run.folder"
        )
    remember(config, run)
    return run


def remember(config: Config, run: Path) -> None:
    """Write a run's config. Raises ValueError when the disk is full or the folder cannot be written."""
    try:
        save_config(config, run / CONFIG)
    except OSError as error:
        raise cannot_write(run, error) from error


def read(run: Path, overrides: Iterable[str] = ()) -> Config:
    """The config of a run with overrides, in the folder that it is in now. Raises ValueError when there is none."""
    if not (run / CONFIG).is_file():
        raise ValueError(f"{run} is no run (it has no {CONFIG}): give the folder that `train` wrote to")
    return load_config(run / CONFIG, [*overrides, f"run.folder={run}"])


def resume(run: Path, overrides: Iterable[str] = (), processes: int | None = None) -> Config:
    """The config of a run to go on with, on another number of processes if asked. Its config is not rewritten.

    Raises ValueError when the folder is no run, or the samples of a step cannot be shared out.
    """
    config = read(run, overrides)
    launched = int(os.environ.get("WORLD_SIZE", "0"))
    processes = processes or launched or config.run.processes
    if processes != config.run.processes:
        config = rescale(config, processes)
    _writable(run)
    return config


@contextmanager
def locked(run: Path, names: Iterable[str] = LOCKS) -> Iterator[None]:
    """Inside `with`, no other process trains in the run's folder; it is given back when the process ends, however.

    Raises ValueError when another one does.
    """
    with ExitStack() as stack:
        for name in names if fcntl is not None else ():
            try:
                file = stack.enter_context((run / name).open("w"))
            except OSError as error:
                raise cannot_write(run, error) from error
            _held.add(file)
            stack.callback(_held.discard, file)
            _lock(file, run)
        yield


def _lock(file: IO[str], run: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"another process is training in {run}: wait until it has stopped, or choose another run.folder"
        ) from error
    except OSError as error:  # some network file systems
        logger.warning("%s cannot be locked (%s): see that nobody else trains in it", run, error.strerror)


def _let_go() -> None:
    """In a process that was forked from one with locks: they are its parent's, and must end with it."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def cannot_write(run: Path, error: OSError) -> ValueError:
    """The sentence for a run's folder that is full, closed or read-only."""
    reason = error.strerror or str(error)
    return ValueError(f"{run} cannot be written ({reason}): make room, give another run.folder, or its permissions")


def _writable(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise cannot_write(run, error) from error
