"""The batches of the next steps, made ready while a step runs: on CUDA on a stream of their own.

Numbers are read a step late, and several processes can only save together, after a whole step. So that a fault of the
data is known to all of them while every one still has a whole step to go, batches are read two steps ahead.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch

from ..data.batch import Batch
from ..step.inputs import Inputs
from ..step.phases import DATA, phase
from .parallel.plain import Parallel

STEPS = 2


class Ahead:
    """A process's inputs, `count` batches a step. prepare: from a batch to its inputs on the device."""

    def __init__(
        self, batches: Iterator[Batch], count: int, prepare: Callable[[Batch], Inputs], device: torch.device
    ) -> None:
        self.batches, self.count, self.prepare = batches, count, prepare
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.steps: deque[list[Inputs]] = deque()
        self.fault = ""  # of the data, met in reading a step; the steps end before it

    def fill(self) -> float:
        """Read up to two steps, none after the last; the seconds for which the device stood still, at most."""
        began, launched = time.perf_counter(), None
        if self.stream is not None:
            launched = torch.cuda.Event()
            launched.record()
        while len(self.steps) < STEPS and self._read():
            pass
        return time.perf_counter() - began if launched is None or launched.query() else 0.0

    def last_step(self, step: int, steps: int, parallel: Parallel) -> int:
        """`steps`, or what can be reached from `step`, where the first batches have a fault on any process."""
        ready = parallel.gather_objects((len(self.steps), bool(self.fault)))
        return step + min(count for count, _ in ready) if any(fault for _, fault in ready) else steps

    def take(self) -> list[Inputs]:
        """The inputs of the step that begins."""
        inputs = self.steps.popleft()
        if self.stream is not None:
            here = torch.cuda.current_stream()
            here.wait_stream(self.stream)
            for one in inputs:
                for value in one.tensors():
                    value.record_stream(here)  # made on the other stream: its memory is not given away before this one
        return inputs

    def close(self) -> None:
        """End the workers that read."""
        if isinstance(self.batches, Generator):
            self.batches.close()

    def _read(self) -> bool:
        """Read a step; whether there was one. A fault of the data is kept."""
        where: AbstractContextManager[object] = torch.cuda.stream(self.stream) if self.stream else nullcontext()
        inputs: list[Inputs] = []
        try:
            while not self.fault and len(inputs) < self.count:
                with phase(DATA):
                    batch = next(self.batches, None)
                if batch is None:
                    return False
                with where:
                    inputs.append(self.prepare(batch))
        except ValueError as error:
            self.fault = str(error)
        if self.fault:
            return False
        self.steps.append(inputs)
        return True
