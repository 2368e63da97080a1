"""Ctrl-C and SIGTERM ask a run to save and stop; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Stop:
    """Inside `with`, whether a stop was asked for."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.is_asked = False

    def __enter__(self) -> Stop:
        self.before = {number: signal.signal(number, self._asked) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_asked = True
