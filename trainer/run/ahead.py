"""The batches of a step, read one step ahead: a fault of the data is known while there is still a whole step to save.

No weight may move before every process has its batches, since several can only save together, after a whole step.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..data.batch import Batch


class Ahead:
    """A process's batches, `count` of them a step."""

    def __init__(self, batches: Iterator[Batch], count: int) -> None:
        self.batches, self.count = batches, count
        self.next: list[Batch] = []
        self.fault = ""  # of the data, met in reading the next step; the batches end with it

    def read(self) -> None:
        """Read the next step's batches, none after the last step; a fault of the data is kept in `fault`."""
        try:
            self.next = [batch for _, batch in zip(range(self.count), self.batches)]
        except ValueError as error:
            self.next, self.fault = [], str(error)

    def __iter__(self) -> Iterator[Batch]:
        """All batches that are left, up to a fault."""
        self.read()
        while self.next:
            yield from self.take()
            self.read()

    def take(self) -> list[Batch]:
        """The batches of the step that begins."""
        taken, self.next = self.next, []
        return taken
