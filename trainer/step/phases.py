"""The parts of a step by name, for a profile: in its trace always, and timed while a clock is running."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import record_function

DATA = "data"  # what the loop waits for
INPUTS = "inputs"  # copies to the device, and what is not cached
ADAPTER = "adapter forward"
BASE = "base"  # of it forward and backward, where it is no graph
FORWARD, BACKWARD = "base forward", "base backward"
UPDATE = "adapter backward, optimiser"
NAMES = (DATA, INPUTS, ADAPTER, BASE, FORWARD, BACKWARD, UPDATE)


class Clock:
    """Seconds of each part: those of the host, and those from its first to its last operation on the device."""

    def __init__(self, device: torch.device) -> None:
        self.is_cuda = device.type == "cuda"
        self.host: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time every part from now on."""
        global _clock
        _clock = self
        try:
            yield
        finally:
            _clock = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = self._mark()
        start = time.perf_counter()
        yield
        self.host[name] += time.perf_counter() - start
        ended = self._mark()
        if began is not None and ended is not None:
            self._events.append((name, began, ended))

    def device(self) -> dict[str, float]:
        """The device's seconds by part, once it has come this far; a CPU's are the host's."""
        if not self.is_cuda:
            return dict(self.host)
        torch.cuda.synchronize()
        found: dict[str, float] = defaultdict(float)
        for name, began, ended in self._events:
            found[name] += began.elapsed_time(ended) / 1e3
        return dict(found)

    def _mark(self) -> torch.cuda.Event | None:
        if not self.is_cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


_clock: Clock | None = None


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Around a part of a step."""
    with record_function(name):
        if _clock is None:
            yield
        else:
            with _clock.part(name):
                yield
