"""Several processes from one command, by torch's own launcher; `accelerate launch -m trainer ...` does the same."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from ..base.device import choose_device
from ..settings.config import Config

SAVE_SECONDS = 600  # what a save after Ctrl-C may take before the launcher ends the processes


OURS = "TRAINER_LAUNCHED"  # set for the processes that `launch` starts


def is_launched() -> bool:
    """Whether this process is already one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_ours() -> bool:
    """Whether `launch` has started this process, not accelerate or torchrun."""
    return OURS in os.environ


def launch(config: Config, arguments: Sequence[str]) -> None:
    """Run `python -m trainer ARGUMENTS` in run.processes processes of this machine, and wait for them.

    Raises ValueError when there are fewer GPUs than processes.
    """
    processes = config.run.processes
    if choose_device(config.run.device) == "cuda" and torch.cuda.device_count() < processes:
        raise ValueError(
            f"run.processes is {processes}, but this machine has {torch.cuda.device_count()} GPUs: "
            "give --processes N, and raise optimiser.accumulation to keep the samples of a step"
        )
    options = ["--nproc-per-node", str(processes), "--standalone", "--shutdown-timeout", str(SAVE_SECONDS)]
    os.environ[OURS] = "1"
    try:
        main([*options, "-m", "trainer", *arguments])
    except ChildFailedError as error:
        # a fault of the input has been said by the first process; what was killed could not say anything
        ended = {rank: failure.exitcode for rank, failure in error.failures.items() if failure.exitcode != 1}
        reason = f"process {min(ended)} ended with {ended[min(ended)]}" if ended else "see above"
        raise ValueError(f"the training has stopped: {reason}; go on with it by resume") from error
    except SignalException:
        pass  # Ctrl-C: the processes have saved and said so
