"""Which sample, caption, drop, time and noise: pure functions of (seed, step, position in the global batch).

Nothing is drawn from a generator that lives on. Every number comes from a hash of its own coordinates, NumPy's
`SeedSequence(seed, spawn_key=(purpose, step, position))`, whose output NumPy keeps stable over versions. So workers,
processes, the split of a step into batches and an interruption change nothing.

The order of an epoch is a permutation of all samples, sorted by the raw words of Philox under a key of (seed, epoch).
Only the permutation in use is held; nothing grows with the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Event = Literal["none", "text", "image", "both"]

# Purposes: the first word of a spawn key, so that no two uses share numbers.
EPOCH, SAMPLE, REPLACEMENT, HELD_OUT, SPLIT = range(5)
FIFTY_THREE_BITS = 2.0**-53


@dataclass(frozen=True)
class Draws:
    """The random numbers of one sample: uniform ones in [0, 1), and the noise generator's seed.

    timestep: of the time; what it means is the objective's. flip: below a half the picture is mirrored. tags: the key
    of their order, 0: as they are.
    """

    caption: float
    drop: float
    timestep: float
    crop_x: float
    crop_y: float
    noise_seed: int
    flip: float = 1.0
    tags: int = 0


def draws(seed: int, step: int, position: int, purpose: int = SAMPLE) -> Draws:
    """The random numbers of the sample at `position` of the global batch of `step`."""
    words = _words(seed, purpose, step, position, count=8)  # a longer list begins as a shorter one does
    caption, drop, timestep, crop_x, crop_y, flip = (_uniform(words[place]) for place in (0, 1, 2, 3, 4, 6))
    # torch's CPU generator reads 32 bits of its seed
    return Draws(caption, drop, timestep, crop_x, crop_y, int(words[5] >> np.uint64(32)), flip, int(words[7]))


def sample_place(seed: int, step: int, position: int, samples_per_step: int, num_samples: int) -> int:
    """Which of `num_samples` stands at this position: the next of the epoch's permutation."""
    epoch, place = divmod(step * samples_per_step + position, num_samples)
    return int(permutation(seed, epoch, num_samples)[place])


def replacement_place(seed: int, step: int, position: int, attempt: int, num_samples: int) -> int:
    """Which sample is taken instead, when the one at this position (and `attempt` others) cannot be used."""
    word = _words(seed, REPLACEMENT, step, position, attempt, count=1)[0]
    return int(_uniform(word) * num_samples)


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, num_samples: int, purpose: int = EPOCH) -> NDArray[Any]:
    """All samples of an epoch in their order."""
    key = np.random.SeedSequence(seed, spawn_key=(purpose, epoch))
    order: NDArray[Any] = np.argsort(np.random.Philox(key).random_raw(num_samples), kind="stable")
    return order.astype(np.uint32) if num_samples < 2**32 else order


def split(seed: int, num_samples: int, num_held_out: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Indices of the samples that are trained, and of those kept out for the validation loss, both ascending.

    Raises ValueError when none would be left to train.
    """
    if num_held_out >= num_samples:
        raise ValueError(
            f"data.held_out = {num_held_out} leaves nothing of {num_samples} samples to train: choose fewer"
        )
    order = permutation(seed, 0, num_samples, SPLIT)
    return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])


def drop_event(uniform: float, drop_text: float, drop_image: float, drop_both: float) -> Event:
    """What is dropped from a sample: the events exclude each other (IP-Adapter, section 4.1.2)."""
    if uniform < drop_text:
        return "text"
    if uniform < drop_text + drop_image:
        return "image"
    if uniform < drop_text + drop_image + drop_both:
        return "both"
    return "none"


def shuffled(texts: Sequence[str], keep: int, key: int) -> list[str]:
    """Texts in an order by this key, but for the first `keep`, which stay."""
    places = np.argsort(np.random.Philox(key=key).random_raw(max(len(texts) - keep, 0)), kind="stable")
    return [*texts[:keep], *(texts[keep + int(place)] for place in places)]


def choose(uniform: float, count: int) -> int:
    """One of `count` with equal probability."""
    return min(int(uniform * count), count - 1)


def _words(seed: int, *key: int, count: int) -> NDArray[Any]:
    return np.random.SeedSequence(seed, spawn_key=key).generate_state(count, np.uint64)


def _uniform(word: np.uint64) -> float:
    return int(word >> np.uint64(11)) * FIFTY_THREE_BITS
