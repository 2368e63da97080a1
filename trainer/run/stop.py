"""Ctrl-C, SIGTERM and the end of a terminal ask a run to save and stop, and so does the end of its launcher.

A second Ctrl-C stops at once, without saving.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType, TracebackType

from ..data.workers import ASKED, follow

LAUNCHER = "TRAINER_LAUNCHER"  # the number of the launcher's process, set for those that it starts
TWICE_SECONDS = 2.0  # a launcher hands Ctrl-C on to processes that may have had it already: that is one, not two


class Stop:
    """Inside `with`, whether a stop was asked for."""

    SIGNALS = tuple(getattr(signal, name) for name in ASKED if hasattr(signal, name))

    def __init__(self) -> None:
        self.has_signal = False
        self.first = 0.0
        self.launcher = _launcher()

    @property
    def is_asked(self) -> bool:
        return self.has_signal or (self.launcher is not None and os.getppid() != self.launcher)

    def __enter__(self) -> Stop:
        ignored = [number for number in self.SIGNALS if signal.getsignal(number) == signal.SIG_IGN]  # as by nohup
        wanted = [number for number in self.SIGNALS if number not in ignored]
        self.before = {number: signal.signal(number, self._asked) for number in wanted}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            # what is still on its way must not end the process before it has said that it saved
            signal.signal(number, signal.SIG_IGN if self.has_signal else handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if not self.has_signal:
            self.has_signal, self.first = True, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.first > TWICE_SECONDS:
            raise KeyboardInterrupt


def follow_launcher() -> None:
    """Get SIGTERM when the launcher ends (Linux): the processes of one that ends as it starts them wait for ever."""
    if launcher := _launcher():
        follow(launcher, signal.SIGTERM)


def _launcher() -> int | None:
    """The number of the process of torch's that has started this one."""
    # it starts its processes in sessions of their own: they outlive it when it is killed
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return int(os.environ.get(LAUNCHER, os.getppid()))  # ours has left its number, since it may be gone already by now
