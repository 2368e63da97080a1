"""Loader processes: they live through the signals that ask a training to stop, and end with their training."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys

ASKED = ("SIGINT", "SIGTERM", "SIGHUP")  # by which a run is asked to stop; Windows has no SIGHUP
PARENT_DEATH = 1  # Linux' PR_SET_PDEATHSIG


def start_worker(_: int) -> None:
    """Set what a DataLoader's worker does with signals."""
    # a signal to a whole process group (Ctrl-C, Slurm, systemd, torch's launcher) is the training's to answer: it
    # saves, and its workers must live until then
    for name in ASKED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere torch's own watchdog ends them within seconds
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


@atexit.register
def end_workers() -> None:
    """End the workers that are left: Python would wait for them, and they do not answer SIGTERM."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()
