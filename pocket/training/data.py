"""The pictures that all stages train on: drawn once, kept as 8 bits in out/pocket/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ipadapter_core.files.whole import whole

from ..world.drawing import SIDE, Chance, chance, draw
from ..world.scenes import TRAIN, random_scenes

COUNT, STICKERS = 34_000, 12_000
PART = 1_000


@dataclass(frozen=True)
class Pictures:
    """Scenes [N, 5], what they left open, and their pictures [N, 3, 64, 64] as 8 bits."""

    scenes: Tensor
    given: Chance
    bytes: Tensor

    def __len__(self) -> int:
        return len(self.scenes)

    def of(self, indices: Tensor) -> Tensor:
        """Pictures [B, 3, 64, 64] of 0..1."""
        return self.bytes[indices].float() / 255

    def some(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch drawn at random: scenes [B, 5], pictures [B, 3, 64, 64] of 0..1."""
        indices = torch.randint(len(self), (count,), generator=generator)
        return self.scenes[indices], self.of(indices)


def training_pictures(folder: Path) -> Pictures:
    """The training set, drawn when it is not in `folder` yet."""
    path = folder / "pictures.npy"
    generator = torch.Generator().manual_seed(TRAIN)
    scenes = random_scenes(COUNT, generator, held_out=False)
    given = chance(COUNT, generator)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            out = np.lib.format.open_memmap(part, "w+", np.uint8, (COUNT, 3, SIDE, SIDE))
            for start in tqdm(range(0, COUNT, PART), desc="draw pictures", unit="thousand"):
                mine = slice(start, start + PART)
                out[mine] = to_bytes(draw(scenes[mine], given.of(mine))).numpy()
            out.flush()
    return Pictures(scenes, given, torch.from_numpy(np.load(path)))


def stickers(folder: Path) -> Pictures:
    """The first training scenes, drawn as stickers."""
    data, rows = training_pictures(folder), slice(0, STICKERS)
    scenes, given = data.scenes[rows], data.given.of(rows)
    parts = torch.arange(STICKERS).split(PART)
    return Pictures(scenes, given, torch.cat([to_bytes(draw(scenes[part], given.of(part), True)) for part in parts]))


def references(count: int, seed: int, held_out: bool = True, as_sticker: bool = False) -> Pictures:
    """Pictures that no training saw; by default also of combinations that none saw."""
    generator = torch.Generator().manual_seed(seed)
    scenes = random_scenes(count, generator, held_out)
    given = chance(count, generator)
    return Pictures(scenes, given, to_bytes(draw(scenes, given, as_sticker)))


def to_bytes(pictures: Tensor) -> Tensor:
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
