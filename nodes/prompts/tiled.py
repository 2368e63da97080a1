"""A picture and its tiles as one image prompt."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ...ipadapter_core import FaceCrop, Feature
from ...ipadapter_core.method.picture import encoder_views
from ...ipadapter_core.method.tiles import Tiling, merged_pooled, merged_states, tile_masks
from .pictures import ImagePrompt

MASK_SIDE = 1024  # pixels of the longer side of the masks of tiles: no layer looks more closely


class TiledPrompt:
    """Pictures [P] whose features are those of the whole times 1 - mix and of their merged tiles times mix.

    tiles: the tiles of all pictures, one picture's after the other's. grid: rows and columns of one picture.
    What is not mixed in is not computed. Raises ValueError for a mix outside of 0..1.
    """

    def __init__(self, whole: ImagePrompt, tiles: ImagePrompt, grid: tuple[int, int], mix: float) -> None:
        if not 0 <= mix <= 1:
            raise ValueError(f"the mix of tiles is {mix}, expected 0 (the whole picture alone) to 1 (its tiles alone)")
        self.whole = whole
        self.tiles = tiles
        self.grid = grid
        self.mix = mix

    @property
    def digest(self) -> str:
        content = (self.mix, self.grid, self.whole.digest, self.tiles.digest)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def features(self, feature: Feature, crop: FaceCrop | None = None) -> Tensor:
        if self.mix == 0:
            return self.whole.features(feature, crop)
        merge = merged_pooled if feature == "pooled" else merged_states
        merged = merge(self.tiles.features(feature, crop), *self.grid)
        return merged if self.mix == 1 else torch.lerp(self.whole.features(feature, crop), merged, self.mix)

    def zero_states(self) -> Tensor:
        return self.whole.zero_states()

    def identities(self) -> None:
        """There are no faces known in plain pictures."""


def tile_views(image: Tensor, tiles: Tiling, size: int, sharpening: float) -> Tensor:
    """The tiles of pictures [B, H, W, C] as an encoder sees them: [B T, size, size, 3]; none of a tile is cut off."""
    return torch.cat([encoder_views(tiles.cut(picture), size, "stretch", sharpening) for picture in image])


def masks_of(image: Tensor, tiles: Tiling, is_soft: bool) -> Tensor:
    """Where each tile of each picture [B, H, W, C] counts: [B T, h, w], at most `MASK_SIDE` pixels long."""
    height, width = image.shape[1:3]
    scale = min(1.0, MASK_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return tile_masks(tiles, height, width, size, is_soft).repeat(len(image), 1, 1)
