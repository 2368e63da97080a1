"""Ctrl-C and SIGTERM ask a run to save and stop, and so does the end of its launcher; a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType


class Stop:
    """Inside `with`, whether a stop was asked for."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.has_signal = False
        # torch's launcher starts its processes in sessions of their own: they outlive it when it is killed
        self.launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @property
    def is_asked(self) -> bool:
        return self.has_signal or (self.launcher is not None and os.getppid() != self.launcher)

    def __enter__(self) -> Stop:
        self.before = {number: signal.signal(number, self._asked) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.has_signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.has_signal = True
