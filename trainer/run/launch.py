"""Several processes from one command, by torch's own launcher; `accelerate launch -m trainer ...` does the same.

Each process notes how it has ended in a folder of the launcher's, so that its last sentence and exit code are true.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from ..base.device import choose_device
from ..settings.config import Config
from . import checkpoint
from .stop import LAUNCHER

SAVE_SECONDS = 600  # what a save after Ctrl-C may take before the launcher ends the processes
NOTES = "TRAINER_LAUNCHED"  # the folder of the notes, set for the processes that `launch` starts
FAULT, ENDED = "fault", "ended"  # notes: an error of a process's own; a run that has ended, and is saved


def is_launched() -> bool:
    """Whether this process is already one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_ours() -> bool:
    """Whether `launch` has started this process, not accelerate or torchrun."""
    return NOTES in os.environ


def rank() -> int:
    """This process's number among those that were started together."""
    return int(os.environ.get("RANK", "0"))


def note(kind: str, text: str) -> None:
    """Leave word for the launcher, where there is one of ours."""
    if is_ours():
        Path(os.environ[NOTES], f"{kind}-{rank()}").write_text(text, encoding="utf-8", errors="backslashreplace")


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error is only that another process is gone, which says for itself why."""
    words = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "Broken pipe")
    return is_launched() and any(word in str(error) for word in words)


def launch(config: Config, arguments: Sequence[str]) -> int:
    """Run `python -m trainer ARGUMENTS` in run.processes processes of this machine, and wait for them.

    Returns the exit code: 0 when the run has ended or was asked to stop and has saved, 128 + the signal's number when
    it could not save before. Raises ValueError when a process has failed, or there are fewer GPUs than processes.
    """
    processes = config.run.processes
    if choose_device(config.run.device) == "cuda" and torch.cuda.device_count() < processes:
        raise ValueError(
            f"run.processes is {processes}, but this machine has {torch.cuda.device_count()} GPUs: "
            "give --processes N, and raise optimiser.accumulation to keep the samples of a step"
        )
    options = ["--nproc-per-node", str(processes), "--standalone", "--shutdown-timeout", str(SAVE_SECONDS)]
    with tempfile.TemporaryDirectory(prefix="trainer-") as folder:
        os.environ |= {NOTES: folder, LAUNCHER: str(os.getpid())}
        try:
            main([*options, "-m", "trainer", *arguments])
        except ChildFailedError as error:
            codes = {found: failure.exitcode for found, failure in error.failures.items()}
            raise ValueError(
                f"the training has stopped: {_cause(Path(folder), codes)}; {_way_on(Path(config.run.folder))}"
            ) from error
        except SignalException as error:
            if not any(Path(folder).glob(f"{ENDED}-*")):
                name, place = signal.Signals(error.sigval).name, Path(config.run.folder)
                print(f"stopped by {name} before anything could be saved; {_way_on(place)}", file=sys.stderr)
                return 128 + int(error.sigval)
        finally:
            del os.environ[NOTES], os.environ[LAUNCHER]
    return 0


def _cause(folder: Path, codes: dict[int, int]) -> str:
    """Which process has failed first, and how: by its own word, or by how it was ended."""
    faults = sorted(folder.glob(f"{FAULT}-*"), key=lambda path: path.stat().st_mtime_ns)
    if faults:
        return f"process {faults[0].name.rpartition('-')[2]} has failed ({faults[0].read_text(encoding='utf-8')})"
    # the launcher itself ends the others by SIGTERM, so that one says the least
    first = min(codes, key=lambda one: (codes[one] >= 0, codes[one] == -signal.SIGTERM, one))
    code = codes[first]
    if code >= 0:
        return f"process {first} has ended with exit code {code}, see above"
    more = ", as the system does when memory is short" if code == -signal.SIGKILL else ""
    return f"process {first} was killed by {signal.Signals(-code).name}{more}"


def _way_on(run: Path) -> str:
    last = checkpoint.latest(run)
    if last is None:
        return "nothing is saved yet: correct what is said above and start again"
    return f"saved is {last.name}; go on with: python -m trainer resume {run}"
