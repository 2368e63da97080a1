"""Loader processes: they live through the signals that ask a training to stop, and end with their training."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Iterator
from typing import Any

from torch.utils.data import DataLoader

ASKED = ("SIGINT", "SIGTERM", "SIGHUP")  # by which a run is asked to stop; Windows has no SIGHUP
PARENT_DEATH = 1  # Linux' PR_SET_PDEATHSIG


def start_worker(_: int) -> None:
    """Set what a DataLoader's worker does with signals."""
    # a signal to a whole process group (Ctrl-C, Slurm, systemd, torch's launcher) is the training's to answer: it
    # saves, and its workers must live until then
    for name in ASKED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _set_mask("SIG_UNBLOCK")  # what came since the fork is ignored as well
    parent = multiprocessing.parent_process()
    if parent is not None and multiprocessing.get_start_method() != "forkserver":
        follow(parent.pid, signal.SIGKILL)


def follow(parent: int | None, number: int) -> None:
    """Get a signal when the parent process ends, or now if it has. Linux; elsewhere torch's watchdog ends workers."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH, int(number))
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def results(loaded: DataLoader[Any]) -> Generator[Any, None, None]:
    """What a DataLoader loads, by workers of ours, which end with it. Raises ValueError when one has ended before."""
    batches = _started(loaded)
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:
        found = str(error)  # "Caught ...": an error of a worker that lives
        is_torchs = isinstance(error, RuntimeError)
        is_end = found.startswith("DataLoader worker") if is_torchs else not found.startswith("Caught ")
        if not loaded.num_workers or not is_end:
            raise
        raise ValueError(
            f"a loader process has ended ({found.partition(chr(10))[0]}): where memory was short, lower "
            "data.workers or run.batch_size"
        ) from error
    finally:
        _end(batches)


def _started(loaded: DataLoader[Any]) -> Iterator[Any]:
    """A DataLoader's results. The end of a worker is met where one is asked for, not wherever a signal finds us."""
    number = getattr(signal, "SIGCHLD", None)
    before = signal.getsignal(number) if number else None
    loaded.worker_init_fn = start_worker
    held = _set_mask("SIG_BLOCK")  # until a worker has set what it does with them, it would end by them
    try:
        batches = iter(loaded)  # sets a handler of torch's, which raises amid an optimiser's step as anywhere else
    finally:
        if held is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
    if number and before is not None:
        signal.signal(number, before)
    return batches


def _set_mask(how: str) -> set[Any] | None:
    """Hold back the signals of ASKED, or let them in; the mask before, None where there is none (Windows)."""
    if not hasattr(signal, "pthread_sigmask"):
        return None
    asked = [getattr(signal, name) for name in ASKED if hasattr(signal, name)]
    return signal.pthread_sigmask(getattr(signal, how), asked)


def _end(batches: Any) -> None:
    """End a DataLoader's workers now, also those that do not answer."""
    if not hasattr(batches, "_shutdown_workers"):
        return
    batches._shutdown_workers()
    for worker in batches._workers:
        worker.kill()


@atexit.register
def end_workers() -> None:
    """End the workers that are left: Python would wait for them, and they do not answer SIGTERM."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()
