"""What keeps a device busy while a cache is made.

Pictures are decoded ahead, and results leave the device and are written while the next ones are encoded.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data import order
from ..data.batch import Item, Skipped, stacked
from ..data.reader import PictureReader
from ..data.shards import write_shard
from ..data.workers import results

FIRST = order.Draws(0.0, 0.0, 0.0, 0.0, 0.0, 0)  # nothing of a cached picture is drawn
AHEAD = 2  # batches whose results are still on the device


@dataclass(frozen=True)
class Chunk:
    """Some samples of one file, in order. found: without their pictures, which are stacked: bytes [k, 3, H, W].

    pixels, conditions: of those that can be used; None where they are not asked for, or none can be used.
    """

    number: int
    found: Sequence[Item | Skipped]
    pixels: Tensor | None
    conditions: Tensor | None

    def pin_memory(self) -> Chunk:
        """The same in page-locked memory; a DataLoader asks for it."""
        pixels, conditions = (None if value is None else value.pin_memory() for value in (self.pixels, self.conditions))
        return dataclasses.replace(self, pixels=pixels, conditions=conditions)


Key = tuple[int, range]  # of a chunk: the file's number, its samples


class Chunks(Dataset[Chunk | ValueError]):
    """Chunks of samples, decoded; an error of the input is carried as a value."""

    def __init__(self, reader: PictureReader, has_pixels: bool, has_conditions: bool) -> None:
        self.reader, self.has_pixels, self.has_conditions = reader, has_pixels, has_conditions

    def __getitem__(self, key: Key) -> Chunk | ValueError:
        number, indices = key
        try:
            found = [self.reader.read(index, FIRST, drop_text=False) for index in indices]
        except ValueError as error:
            return error
        usable = [item for item in found if isinstance(item, Item)]
        return Chunk(
            number,
            [dataclasses.replace(one, pixels=None, condition=None) if isinstance(one, Item) else one for one in found],
            stacked([item.pixels for item in usable]) if self.has_pixels else None,
            stacked([item.condition for item in usable]) if self.has_conditions else None,
        )


def decoded(chunks: Chunks, keys: Sequence[Key], workers: int, device: torch.device) -> Iterator[Chunk]:
    """The chunks of all files by one loader, so that the next file is decoded while this one is encoded."""
    loaded = DataLoader(
        chunks,
        batch_size=None,
        sampler=keys,  # any sequence will do
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    for chunk in results(loaded):
        if isinstance(chunk, ValueError):
            raise chunk
        yield chunk


class Leaving:
    """Results on their way to the CPU, in order, in the number format in which they are stored."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._coming: deque[Callable[[], Tensor]] = deque()
        self._there: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        self._coming.append(_leave(values.to(self.dtype)))
        while len(self._coming) > AHEAD:
            self._there.append(self._coming.popleft()())

    def all(self) -> Tensor:
        """Everything that was added, one after the other; an empty tensor for nothing."""
        while self._coming:
            self._there.append(self._coming.popleft()())
        return torch.cat(self._there) if self._there else torch.zeros(0, dtype=self.dtype)


class Writer:
    """Writes files one after the other beside the encoding; an error of one is raised at the next, or at the end."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def write(self, path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
        """Write a file when the one before is written: no more than one waits in memory."""
        self._wait()
        self._last = self._thread.submit(write_shard, path, tensors, metadata)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last:
            last.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)


def _leave(values: Tensor) -> Callable[[], Tensor]:
    """Start a copy to the CPU, without waiting where the device can; what it gives waits for it."""
    if not values.is_cuda:
        there = values.cpu()
        return lambda: there
    copied, event = values.to("cpu", non_blocking=True), torch.cuda.Event()
    event.record()

    def arrived() -> Tensor:
        event.synchronize()
        return copied.clone()  # page-locked memory goes back

    return arrived
