"""How pictures, weights over frames and masks are laid on latents: this pack's way, and that of older packs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support import host

pytestmark = pytest.mark.comfy
core, layout = host.part("ipadapter_core"), host.part("nodes.layout")
PICTURES = 3
LAST = core.Placement(beyond="last")
GUESSED = core.Placement(grid="guessed")


def layouts(size: tuple[int, int] = (8, 8), **influence: Any) -> Any:
    """One layer whose V' of picture p is p + 1, for both roles."""
    v = torch.arange(1.0, PICTURES + 1).view(PICTURES, 1, 1).expand(PICTURES, 2, 4)
    image = core.ImageKV(v.clone(), v.clone())
    kv = {role: {1: image} for role in layout.Role}
    return layout.Layouts(kv, {1: 2}, core.Influence(**influence), size)


def given(made: Any, rows: tuple[int, ...], seen: tuple[int, int] | None = None, chunks: int = 1) -> Any:
    parts = (layout.Chunk(layout.Role.CONDITIONAL),) * chunks
    return made.tensors(parts, layout.Excerpt(rows, None, seen), torch.device("cpu"), None)


def picked(tensors: Any) -> list[float]:
    return [float(x) for x in tensors.layers[1].v[:, 0, 0, 0]]


def test_pictures_beyond_the_last() -> None:
    rows = (0, 1, 2, 3, 7)
    assert picked(given(layouts(), rows)) == [1, 2, 3, 1, 2]
    assert picked(given(layouts(placement=LAST), rows)) == [1, 2, 3, 3, 3]


def test_frames_beyond_the_last_are_counted_apart_from_pictures() -> None:
    rows = (0, 1, 4, 6)
    again = given(layouts(frames=(0.5, 1.0, 2.0, 3.0, 4.0)), rows)
    last = given(layouts(frames=(0.5, 1.0, 2.0, 3.0, 4.0), placement=LAST), rows)
    assert again.factor.flatten().tolist() == [0.5, 1.0, 4.0, 1.0] and picked(again) == [1, 2, 2, 1]
    assert last.factor.flatten().tolist() == [0.5, 1.0, 4.0, 4.0] and picked(last) == [1, 2, 3, 3]


def expected(mask: torch.Tensor, size: tuple[int, int], count: int) -> list[float]:
    """The mask at `count` positions, pixel by pixel: bilinear between centres of pixels, edges held."""
    rows = int(size[0] / math.sqrt(size[0] * size[1] / count))
    if count % rows:
        rows += 1
    columns = count // rows
    height, width = mask.shape

    def along(place: int, cells: int, pixels: int) -> tuple[int, int, float]:
        at = max((place + 0.5) * pixels / cells - 0.5, 0.0)
        low = min(int(at), pixels - 1)
        return low, min(low + 1, pixels - 1), at - low

    values = []
    for y in range(rows):
        top, bottom, down = along(y, rows, height)
        for x in range(columns):
            left, right, over = along(x, columns, width)
            upper = float(mask[top, left]) * (1 - over) + float(mask[top, right]) * over
            lower = float(mask[bottom, left]) * (1 - over) + float(mask[bottom, right]) * over
            values.append(upper * (1 - down) + lower * down)
    missing = count - len(values)
    return [0.0] * (missing // 2) + values + [0.0] * (missing - missing // 2)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (15, 33), (13, 21), (40, 9)])
def test_masks_on_a_guessed_grid(size: tuple[int, int]) -> None:
    """Every grid that layers have, also one that nobody expected; stretched over an area's own size."""
    mask = torch.rand(2, 11, 17, generator=torch.Generator().manual_seed(0))
    found = given(layouts((64, 64), mask=mask, placement=core.Placement("last", "guessed")), (0, 1, 5), size, 2)
    worst, short = 0.0, 0
    for level in range(4):
        grid = layout.grid_at(size, level)
        for place, row in enumerate((0, 1, 1, 0, 1, 1)):
            wanted = torch.tensor(expected(mask[row], size, math.prod(grid)))
            short += int(wanted[0] == 0 or wanted[-1] == 0)
            worst = max(worst, float((found.where.at(grid)[place, :, 0] - wanted).abs().max()))
    odd = (5, 7)
    worst = max(worst, float((found.where.at(odd)[0, :, 0] - torch.tensor(expected(mask[0], size, 35))).abs().max()))
    print(f"{size}: {worst:.1e} from the formula; {short} of 24 grids too short")
    assert worst < 1e-6


def test_windows_of_others_stay_unknown() -> None:
    window = SimpleNamespace(dim=0, index_list=[4, 5, 6])
    options, shape = {"context_window": window}, (8, 4, 8, 8)
    assert layout.excerpt_of(options, 3, shape).rows == (4, 5, 6)
    older = core.Placement(windows="AnimateDiff")
    assert layout.excerpt_of(options, 3, shape, older).rows == (0, 1, 2)
    indices = {"ad_params": {"sub_idxs": [2, 3]}}
    assert layout.excerpt_of(indices, 2, shape, older).rows == (2, 3)
