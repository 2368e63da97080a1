"""A server that runs for long: memory is flat over a thousand runs, and the first result comes again bit for bit."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import psutil
import pytest
import torch

from tests.support import held, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow, pytest.mark.memory]
RUNS, SETTLED, MOST_MIB = 1000, 200, 4.0


def settings() -> list[dict[str, Any]]:
    """Of every control something, so that each run differs from the one before."""
    mask = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(4))
    return [
        {"mask": mask}, {"layers": "style"}, {"embeds_scaling": "K+V"}, {"combine": "average"}, {"rescale": 0.5},
        {"curve_values": [1.0, 0.5]}, {"weight": [0.5, 1.0]}, {"negative": held.prompt(1, seed=9)}, {"weight": 0.7},
        {"combine": "one for each latent", "picture_weights": "1, 0.5"}, {"layers": "style precise"},
    ]  # fmt: skip


def latents(seed: int, inputs: dict[str, Any]) -> torch.Tensor:
    """A run of one step with a reference of its own."""
    of = models.Features.random(2, seed, tokens=3)
    patched = models.apply(held.model(), held.adapter(), of, **inputs)
    text, size = models.text(5, tokens=7), (4, 4)
    return models.sample(patched, text, text, cfg=1.0, steps=1, size=size, batch=2)


def test_a_thousand_runs() -> None:
    process, choices = psutil.Process(), itertools.cycle(settings())
    kinds = settings()
    first = [latents(seed, inputs) for seed, inputs in enumerate(kinds)]
    mib: dict[int, float] = {}
    for run in range(1, RUNS + 1):
        latents(1000 + run, next(choices))
        if run % 100 == 0:
            gc.collect()
            mib[run] = process.memory_info().rss / 2**20
    print(f"\nresident MiB: {', '.join(f'{run}: {size:.1f}' for run, size in mib.items())}")
    again = [latents(seed, inputs) for seed, inputs in enumerate(kinds)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({tuple(found.flatten().tolist()) for found in first}) == len(first)  # they do differ
    assert mib[RUNS] - mib[SETTLED] <= MOST_MIB
