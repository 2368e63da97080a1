"""A cache's samples as tensors, in the number format in which they are stored: nothing is decoded or encoded."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ipadapter_core.method.spec import Feature

from ..settings.config import Config
from . import order
from .batch import Item, Skipped
from .cached_rows import SampleRows
from .fingerprint import IDENTITIES, difference, fingerprints
from .record import Source
from .shards import Shards, count_shards, missing_files, read_part

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
        if missing := missing_files(folder / part, made):
            count = count_shards(made["rows"], made["shard"])
            raise ValueError(
                f"the cache {folder} is not complete: {len(missing)} of {count} files of its {part} are missing; "
                f"{again} to go on"
            )
    return CachedReader(folder, feature, len(source), has_identities=IDENTITIES in parts)


class CachedReader:
    """Rows of a complete cache that fits.

    All its files are mapped here, before a loader's processes are forked, so that each is opened once in a run. Raises
    ValueError, naming it, when one is damaged.
    """

    def __init__(self, folder: Path, feature: Feature | None, num_samples: int, has_identities: bool = False) -> None:
        self.num_samples = num_samples
        self.samples = SampleRows(folder / "samples")
        self.latents, self.text = Shards(folder / "latents"), Shards(folder / "text")
        self.features = Shards(folder / feature) if feature else None
        self.identities = Shards(folder / IDENTITIES) if has_identities else None
        for part in (self.samples, self.latents, self.text, self.features, self.identities):
            if part:
                part.map_all()

    def __len__(self) -> int:
        return self.num_samples

    def read(self, index: int, draws: order.Draws, drop_text: bool) -> Item | Skipped:
        found = self.samples.find(index)
        if isinstance(found, Skipped):
            return found
        (name, row), number = found, index // self.samples.shard
        captions = self.samples.captions(index)
        return Item(
            name=name,
            caption="",
            geometry=self.samples.geometry(number, row),
            moments=self.latents.tensors(number)["moments"][row],
            texts=self.texts(EMPTY if drop_text else int(captions[order.choose(draws.caption, len(captions))])),
            features=self.features.tensors(number)["features"][row] if self.features else None,
            identity=self.identities.tensors(number)[IDENTITIES][row] if self.identities else None,
        )

    def texts(self, number: int) -> dict[str, Tensor]:
        """What a text conditions on, by the base's names, from its number."""
        shard, row = divmod(number, self.text.shard)
        return {name: tensor[row] for name, tensor in self.text.tensors(shard).items()}

    def zero_features(self) -> Tensor | None:
        """What stands for a dropped picture, [1, E] or [1, S, F]; None where the family reads no features."""
        return self.features.tensors(0)[ZERO] if self.features else None
