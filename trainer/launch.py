"""Several processes from one command, by torch's own launcher; `accelerate launch -m trainer ...` does the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import torch

from .config import Config
from .device import choose_device

SAVE_SECONDS = 600  # what a save after Ctrl-C may take before the launcher ends the processes


def is_launched() -> bool:
    """Whether this process is already one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(config: Config, arguments: Sequence[str]) -> None:
    """Run `python -m trainer ARGUMENTS` in run.processes processes of this machine, and wait for them.

    Raises ValueError when there are fewer GPUs than processes.
    """
    from torch.distributed.run import main

    processes = config.run.processes
    if choose_device(config.run.device) == "cuda" and torch.cuda.device_count() < processes:
        raise ValueError(
            f"run.processes is {processes}, but this machine has {torch.cuda.device_count()} GPUs: "
            "give --processes N, and raise optimiser.accumulation to keep the samples of a step"
        )
    options = ["--nproc-per-node", str(processes), "--standalone", "--shutdown-timeout", str(SAVE_SECONDS)]
    sys.argv[1:] = [*options, "-m", "trainer", *arguments]
    main(sys.argv[1:])
