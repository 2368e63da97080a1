"""Several processes of one machine, each with its own part of the references, and its own GPU where there are some.

They share nothing but the folder, so one that is killed hurts no other, and machines share work in the same way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ..base.device import choose_device
from .work import NUMBER, PARENT

PAUSE = 0.2  # seconds between two looks at the processes


def launch(arguments: Sequence[str], processes: int, part: tuple[int, int], device: str, logs: Path) -> None:
    """Run `python -m trainer ARGUMENTS --part ...` in each process, and wait for them.

    part: of this machine. The first process speaks; what the others say goes to `logs`.
    Raises ValueError when there are fewer GPUs than processes, or one has failed: then the others are ended.
    """
    gpus = _gpus(device)
    if gpus is not None and len(gpus) < processes:
        raise ValueError(f"--processes is {processes}, but this machine has {len(gpus)} GPUs: give a smaller number")
    logs.mkdir(parents=True, exist_ok=True)
    number, count = part
    running: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(processes):
            mine = [*arguments, "--processes", "1", "--part", f"{number * processes + index}/{count * processes}"]
            own = {"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus is not None else {}
            environment = os.environ | {PARENT: str(os.getpid()), NUMBER: str(index)} | own
            with (logs / f"process-{index}.log").open("wb") as log:
                out = None if index == 0 else log
                running.append(
                    subprocess.Popen([sys.executable, "-m", "trainer", *mine], env=environment, stdout=out, stderr=out)
                )
        _wait(running, logs)
    finally:
        for process in running:
            process.terminate()
            process.wait()


def _wait(running: Sequence[subprocess.Popen[bytes]], logs: Path) -> None:
    while any(process.poll() is None for process in running):
        _check(running, logs)
        time.sleep(PAUSE)
    _check(running, logs)


def _check(running: Sequence[subprocess.Popen[bytes]], logs: Path) -> None:
    for index, process in enumerate(running):
        if process.poll():
            log = logs / f"process-{index}.log"
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = said[-1].removeprefix("error: ") if said else "see above"
            raise ValueError(
                f"process {index} ended with {process.returncode} ({why}); give the same command again to go on"
            )


def _gpus(device: str) -> list[str] | None:
    """The names of the GPUs that may be used; None: it does not compute on CUDA."""
    if choose_device(device) != "cuda":
        return None
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]
