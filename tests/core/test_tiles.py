"""Tiles of a picture: they cover it, their masks share it, and their merged features are the layout's means."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ipadapter_core.method.tiles import Tiling, merged_pooled, merged_states, tile_masks, tiling

# Height x width: square, near it, wide, tall, 1:8, 1:100, tiny.
SIZES = [(512, 512), (300, 256), (512, 768), (333, 97), (64, 512), (512, 64), (5, 500), (1, 1), (1, 7), (3, 2)]
GRIDS = [(0, 0), (2, 2), (1, 3), (0, 2), (3, 0), (4, 5), (16, 16)]


def seen(tiles: Tiling, height: int, width: int) -> np.ndarray:
    """How many tiles see each pixel."""
    count = np.zeros((height, width), int)
    for top, left in tiles.boxes:
        assert top >= 0 and top + tiles.height <= height and left >= 0 and left + tiles.width <= width
        count[top : top + tiles.height, left : left + tiles.width] += 1
    return count


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_cover_and_masks_share(size, grid, overlap):
    tiles = tiling(*size, *grid, overlap)
    assert seen(tiles, *size).min() >= 1
    for asked, made in zip(grid, (tiles.tops, tiles.lefts)):
        assert len(made) == asked or not asked
    for is_soft in (True, False):
        masks = tile_masks(tiles, *size, size, is_soft)
        assert masks.shape == (len(tiles.boxes), *size) and masks.min() >= 0
        assert (masks.sum(0) - 1).abs().max() <= 1e-5
        for (top, left), mask in zip(tiles.boxes, masks):
            assert mask.sum() == pytest.approx(mask[top : top + tiles.height, left : left + tiles.width].sum().item())


@pytest.mark.parametrize(
    ("size", "overlap", "grid"),
    [
        ((512, 512), 0.25, (2, 2)),
        ((512, 680), 0.0, (2, 2)),
        ((512, 768), 0.0, (1, 2)),
        ((100, 800), 0.0, (1, 8)),
        ((800, 100), 0.0, (8, 1)),
        ((100, 800), 0.5, (1, 15)),
        ((10, 10000), 0.0, (1, 16)),
    ],
)
def test_numbers_of_tiles(size, overlap, grid):
    tiles = tiling(*size, overlap=overlap)
    assert (len(tiles.tops), len(tiles.lefts)) == grid
    assert tiles.height == tiles.width or max(size) > 16 * min(size)


def test_overlap_is_at_least_what_was_asked_for():
    for overlap in (0.1, 0.25, 0.5):
        tiles = tiling(600, 900, 2, 3, overlap)
        for starts, side in ((tiles.tops, tiles.height), (tiles.lefts, tiles.width)):
            shared = [before + side - start for before, start in pairwise(starts)]
            print(f"asked for {overlap}: tiles of {side} share {shared}")
            assert min(shared) >= overlap * side - 1


def test_soft_masks_are_ramps_and_hard_ones_steps():
    """A row of two tiles, 0..5 and 3..8: the ramp over 3..5 by hand, at the middles of pixels."""
    tiles = Tiling((0,), (0, 3), 1, 5)
    ramp = torch.tensor([0, 0, 0, 0.25, 0.75, 1, 1, 1])
    assert torch.allclose(tile_masks(tiles, 1, 8, (1, 8))[:, 0], torch.stack([1 - ramp, ramp]))
    step = torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1])
    assert torch.equal(tile_masks(tiles, 1, 8, (1, 8), False)[:, 0], torch.stack([1 - step, step]))


def test_masks_of_another_size_are_the_same_places():
    tiles = tiling(400, 600, 2, 3, 0.25)
    whole = tile_masks(tiles, 400, 600, (400, 600))
    small = torch.nn.functional.avg_pool2d(whole, 10)
    difference = (tile_masks(tiles, 400, 600, (40, 60)) - small).abs().max().item()
    print(f"masks at a tenth of the size against their means: {difference:.1e}")
    assert difference <= 0.02


def test_cut_is_the_picture():
    picture = torch.rand(20, 30, 3)
    tiles = tiling(20, 30, 2, 3)
    pieces = tiles.cut(picture)
    for (top, left), piece in zip(tiles.boxes, pieces, strict=True):
        assert torch.equal(piece, picture[top : top + 10, left : left + 10])


@pytest.mark.parametrize("has_class_token", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (1, 4), (3, 2)])
def test_merged_features_by_hand(rows, columns, has_class_token):
    """Two pictures, 4 x 4 patches: every patch of the result is the mean of a block of the tiles laid out."""
    side, width, count = 4, 5, rows * columns
    states = torch.randn(2 * count, side * side + has_class_token, width)
    ours = merged_states(states, rows, columns)
    assert ours.shape == (2, side * side + has_class_token, width)
    expected = torch.zeros_like(ours)
    for picture in range(2):
        tiles = states[picture * count : (picture + 1) * count]
        if has_class_token:
            expected[picture, 0] = tiles[:, 0].mean(0)
        for y in range(side):
            for x in range(side):
                block = []
                for down in range(y * rows, (y + 1) * rows):
                    for across in range(x * columns, (x + 1) * columns):
                        tile = tiles[down // side * columns + across // side]
                        block.append(tile[has_class_token + down % side * side + across % side])
                expected[picture, has_class_token + y * side + x] = torch.stack(block).mean(0)
    difference = (ours - expected).abs().max().item()
    print(f"{rows} x {columns}: largest difference {difference:.1e}")
    assert difference <= 1e-6
    pooled = merged_pooled(states[:, 0], rows, columns)
    assert torch.allclose(pooled[1], states[count:, 0].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("numbers", "words"), [((17, 0, 0.0), "choose 1 to 16"), ((0, -1, 0.0), "choose"), ((2, 2, 0.6), "0.5 \\(half")]
)
def test_numbers_out_of_range(numbers, words):
    with pytest.raises(ValueError, match=words):
        tiling(64, 64, *numbers)
