"""The way of computing that a config names."""

from __future__ import annotations

from ...base.device import choose_device
from ...settings.config import Config
from ..stop import follow_launcher
from .plain import Parallel
from .zero import ZeroParallel


def start(config: Config) -> Parallel:
    """One process, DDP or ZeRO, by run.parallel.

    Raises ValueError when the config asks for what this machine lacks.
    """
    follow_launcher()  # from here on processes wait for each other
    if not config.run.parallel.startswith("zero"):
        return Parallel(config)
    if choose_device(config.run.device) == "mps":
        raise ValueError(f"run.parallel = {config.run.parallel!r} does not run on MPS: choose none")
    return ZeroParallel(config)
