"""The order of samples and their random numbers, as functions of (seed, step, position) alone."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support import runs
from tests.support.data_loading import CountingReader, loader
from trainer.data import order

SAMPLES = 100_000
RATES = {"text": 0.05, "image": 0.05, "both": 0.05, "none": 0.85}


@pytest.mark.slow
def test_drop_rates_and_the_same_events_for_any_number_of_workers(tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"batch_size": 500, "steps": SAMPLES // 500})
    events = {}
    for workers in (0, 1, 2, 4):
        batches = loader(config, CountingReader(1000), workers=workers).batches(0)
        seen = [
            {(True, True): "both", (True, False): "text", (False, True): "image", (False, False): "none"}[
                caption == "", bool(dropped)
            ]
            for batch in batches
            for caption, dropped in zip(batch.captions, batch.drop_image, strict=True)
        ]
        events[workers] = seen
    counts = Counter(events[0])
    print(f"\n{'event':8}{'rate':>10}{'expected':>10}{'sigmas':>8}")
    for event, rate in RATES.items():
        sigma = math.sqrt(rate * (1 - rate) / SAMPLES)
        off = (counts[event] / SAMPLES - rate) / sigma
        print(f"{event:8}{counts[event] / SAMPLES:10.5f}{rate:10.5f}{off:8.2f}")
        assert abs(off) <= 3
    assert len(events[0]) == SAMPLES
    assert events[0] == events[1] == events[2] == events[4]


def test_every_epoch_has_each_sample_once_in_an_order_of_its_own() -> None:
    number, per_step = 1001, 7
    places = [
        order.sample_place(3, step, position, per_step, number)
        for step in range(2 * number // per_step)
        for position in range(per_step)
    ]
    first, second = places[:number], places[number:]
    assert sorted(first) == sorted(second) == list(range(number))
    fixed = sum(a == b for a, b in zip(first, second, strict=True))
    print(f"\nsamples at the same place in both epochs: {fixed} (1 expected)")
    assert fixed < 10


def test_order_and_draws_stay_what_they_are() -> None:
    """A run goes on years later: these values must never change."""
    assert order.permutation(0, 0, 8).tolist() == [7, 6, 3, 2, 4, 1, 5, 0]
    draws = order.draws(0, 1, 2)
    assert (draws.caption, draws.drop, draws.timestep) == (0.8618076075560226, 0.6556583885118024, 0.9690918979262967)
    assert (draws.crop_x, draws.crop_y, draws.noise_seed) == (0.3584838631899748, 0.9365167397393116, 3875686515)
    assert [order.replacement_place(0, 1, 2, attempt, 1000) for attempt in range(4)] == [242, 627, 800, 800]


def test_seed_step_position_and_purpose_each_change_the_draws() -> None:
    draws = [order.draws(*key) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0, order.HELD_OUT)]]
    assert len({draw.noise_seed for draw in draws}) == len({draw.drop for draw in draws}) == 5


def test_draws_are_uniform_and_independent() -> None:
    table = np.array(
        [
            [d.caption, d.drop, d.timestep, d.crop_x, d.crop_y]
            for d in (order.draws(0, n // 8, n % 8) for n in range(20_000))
        ]
    )
    off = np.abs(table.mean(0) - 0.5) / (math.sqrt(1 / 12 / len(table)))
    correlation = np.abs(np.corrcoef(np.concatenate([table[:-1], table[1:]], 1).T) - np.eye(10)).max()
    print(f"\nmeans off by at most {off.max():.2f} sigma, largest correlation {correlation:.4f}")
    assert off.max() < 4
    assert correlation < 5 / math.sqrt(len(table))


def test_held_out_samples_are_never_trained() -> None:
    trained, held_out = order.split(5, 100, 10)
    assert len(held_out) == 10
    assert sorted([*trained.tolist(), *held_out.tolist()]) == list(range(100))
    with pytest.raises(ValueError, match="held_out = 100 leaves nothing of 100 samples"):
        order.split(5, 100, 100)
