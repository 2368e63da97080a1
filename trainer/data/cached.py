"""A cache's samples as tensors, in the number format in which they are stored: nothing is decoded or encoded."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ipadapter_core.method.spec import Feature

from ..settings.config import Config
from . import order
from .batch import Item, Skipped
from .fingerprint import IDENTITIES, difference, fingerprints
from .geometry import Geometry
from .record import Source
from .shards import SHARD, Shards, count_shards, read_part, shard_path

EMPTY = 0  # the number of the empty text
ZERO = "zero"  # the dropped picture's features, in the first shard


def open_cache(config: Config, feature: Feature | None, source: Source) -> CachedReader:
    """The cache of data.cache.

    Raises ValueError when it does not fit this training or is not complete, saying which part.
    """
    folder = Path(config.data.cache)
    again = "run python -m trainer cache with this config"
    parts = fingerprints(config, source, feature)
    for part, wanted in parts.items():
        made = read_part(folder / part)
        if made is None:
            raise ValueError(f"the cache {folder} has no {part}: {again}")
        if differs := difference(made["made with"], wanted):
            raise ValueError(
                f"the cache {folder} does not fit this training: of its {part} the {differs}; "
                "give another data.cache and make it, or restore what differs"
            )
        rows = made["rows"]
        missing = [number for number in range(count_shards(rows)) if not shard_path(folder / part, number).exists()]
        if missing:
            raise ValueError(
                f"the cache {folder} is not complete: {len(missing)} of {count_shards(rows)} files of its {part} "
                f"are missing; {again} to go on"
            )
    return CachedReader(folder, feature, len(source), has_identities=IDENTITIES in parts)


class CachedReader:
    """Rows of a complete cache that fits."""

    def __init__(self, folder: Path, feature: Feature | None, num_samples: int, has_identities: bool = False) -> None:
        self.num_samples = num_samples
        self.samples, self.latents, self.text = (Shards(folder / part) for part in ("samples", "latents", "text"))
        self.features = Shards(folder / feature) if feature else None
        self.identities = Shards(folder / IDENTITIES) if has_identities else None

    def __len__(self) -> int:
        return self.num_samples

    def read(self, index: int, draws: order.Draws, drop_text: bool) -> Item | Skipped:
        shard, place = divmod(index, SHARD)
        rows = self.samples.metadata(shard)
        row, name = rows["row"][place], rows["name"][place]
        if row is None:
            return Skipped(name, *rows["fault"][str(place)])
        numbers = rows["captions"][place]
        number = EMPTY if drop_text else numbers[order.choose(draws.caption, len(numbers))]
        return Item(
            name=name,
            caption="",
            geometry=_geometry(self.samples.row(shard, "sizes", row).tolist()),
            moments=self.latents.row(shard, "moments", row),
            texts=self.texts(number),
            features=self.features.row(shard, "features", row) if self.features else None,
            identity=self.identities.row(shard, IDENTITIES, row) if self.identities else None,
        )

    def texts(self, number: int) -> dict[str, Tensor]:
        """What a text conditions on, by the base's names, from its number."""
        shard, row = divmod(number, SHARD)
        return {name: self.text.row(shard, name, row) for name in self.text.names(shard)}

    def zero_features(self) -> Tensor | None:
        """What stands for a dropped picture, [1, E] or [1, S, F]; None where the family reads no features."""
        return self.features.row(0, ZERO, 0)[None] if self.features else None


def _geometry(sizes: list[int]) -> Geometry:
    """The six numbers as a cache holds them."""
    return Geometry((sizes[0], sizes[1]), (sizes[2], sizes[3]), (sizes[4], sizes[5]))
