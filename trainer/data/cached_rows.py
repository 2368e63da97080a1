"""What a cache's part `samples` says of each sample: its name, which row it has, its captions, or why it has none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .batch import Item, Skipped
from .geometry import Geometry
from .shards import ROWS, Mapped, Shards


class SampleRows(Shards):
    """The part `samples`, sample by sample."""

    def find(self, index: int) -> tuple[str, int] | Skipped:
        """The name of a sample and its row in its file of every other part; or why it cannot be used."""
        number, place = divmod(index, self.shard)
        tensors = self.tensors(number)
        name, row = _name(tensors, place), int(tensors["row"][place])
        return (name, row) if row >= 0 else Skipped(name, *self.metadata(number)["fault"][str(place)])

    def captions(self, index: int) -> Tensor:
        """The numbers of a sample's captions."""
        number, place = divmod(index, self.shard)
        return _part(self.tensors(number), "captions", place)

    def geometry(self, number: int, row: int) -> Geometry:
        """The sizes and the crop of a row of a file."""
        sizes = self.tensors(number)["sizes"][row].tolist()
        return Geometry((sizes[0], sizes[1]), (sizes[2], sizes[3]), (sizes[4], sizes[5]))

    def faults(self, number: int) -> list[Skipped]:
        """The samples of a file that cannot be used."""
        tensors = self.tensors(number)
        return [Skipped(_name(tensors, int(place)), *fault) for place, fault in self.metadata(number)["fault"].items()]

    def _map(self, number: int) -> Mapped:
        found = super()._map(number)
        if "row" in found.tensors:
            return found
        # the first caches had all but the sizes as JSON
        rows = found.values()
        tensors = found.tensors | _packed(rows["name"], rows["row"], rows["captions"])
        return Mapped(tensors, {ROWS: json.dumps({"fault": rows["fault"]})})


def sample_rows(
    found: Sequence[Item | Skipped], captions: Sequence[Sequence[int]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file of the part `samples`. captions: their numbers, of each sample."""
    usable = [item for item in found if isinstance(item, Item)]
    numbers = iter(range(len(usable)))
    rows = [next(numbers) if isinstance(one, Item) else None for one in found]
    sizes = torch.tensor([item.geometry for item in usable], dtype=torch.int64).view(-1, 6)
    faults = {str(place): [one.kind, one.reason] for place, one in enumerate(found) if isinstance(one, Skipped)}
    return {"sizes": sizes, **_packed([one.name for one in found], rows, captions)}, {"fault": faults}


def _packed(names: Iterable[str], rows: Iterable[int | None], captions: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]  # a file's name may be of other bytes
    return {
        "row": torch.tensor([-1 if row is None else row for row in rows], dtype=torch.int32),
        "names": torch.from_numpy(np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()),
        "names_end": torch.tensor([len(name) for name in encoded]).cumsum(0),
        "captions": torch.tensor([number for numbers in captions for number in numbers]),
        "captions_end": torch.tensor([len(numbers) for numbers in captions]).cumsum(0),
    }


def _name(tensors: dict[str, Tensor], place: int) -> str:
    return _part(tensors, "names", place).numpy().tobytes().decode("utf-8", "surrogatepass")


def _part(tensors: dict[str, Tensor], name: str, place: int) -> Tensor:
    ends = tensors[f"{name}_end"]
    return tensors[name][int(ends[place - 1]) if place else 0 : int(ends[place])]
