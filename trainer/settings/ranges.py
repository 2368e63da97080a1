"""What every number of a config may be: out of range, a training would be ruined without a word."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .config import Config


@dataclass(frozen=True)
class Range:
    """From `low` to `high`; the ends themselves are left out where they are open. advice: what to give, in words."""

    low: float
    high: float = math.inf
    is_low_open: bool = False
    is_high_open: bool = True
    advice: str = ""

    def holds(self, value: float) -> bool:
        """Whether a number lies in it; what is no number (nan) never does."""
        above = value > self.low if self.is_low_open else value >= self.low
        return above and (value < self.high if self.is_high_open else value <= self.high)

    @property
    def words(self) -> str:
        low = f"above {self.low:g}" if self.is_low_open else f"{self.low:g} or more"
        high = f" and {'below' if self.is_high_open else 'at most'} {self.high:g}"
        return (low if math.isinf(self.high) else low + high) + (f": {self.advice}" if self.advice else "")


COUNT, FROM_ONE = Range(0), Range(1)
POSITIVE = Range(0, is_low_open=True)
SHARE = Range(0, 1, is_high_open=False)
FINITE = Range(-math.inf, is_low_open=True)
NEVER = Range(0, advice="0 = never")

RANGES = {
    "data.resolution": FROM_ONE,
    "data.min_side": COUNT,
    "data.keep_tags": Range(0, advice="0 = every tag is shuffled"),
    "data.held_out": COUNT,
    "data.workers": Range(0, advice="0 = pictures are loaded by the training process itself"),
    "data.drop_text": SHARE,
    "data.drop_image": SHARE,
    "data.drop_both": SHARE,
    "cache.batch_size": Range(0, advice="0 = by the resolution"),
    "cache.workers": Range(0, advice="0 = as many as data.workers"),
    "optimiser.learning_rate": POSITIVE,
    "optimiser.weight_decay": COUNT,
    "optimiser.betas": Range(0, 1),
    "optimiser.epsilon": COUNT,
    "optimiser.warmup_steps": COUNT,
    "optimiser.clip": Range(0, advice="0 = no clipping"),
    "optimiser.accumulation": FROM_ONE,
    "optimiser.ema": Range(0, 1, advice="a decay like 0.9999, or 0 for none"),
    "optimiser.noise_offset": Range(0, advice="0 = none"),
    "optimiser.min_snr_gamma": POSITIVE,
    "run.seed": Range(0, 2**63),
    "run.steps": FROM_ONE,
    "run.batch_size": FROM_ONE,
    "run.processes": FROM_ONE,
    "run.save_every_steps": Range(0, advice="0 = at the end and when asked to stop"),
    "run.keep_last": Range(0, advice="0 = all are kept"),
    "run.keep_every_steps": Range(0, advice="0 = none is kept for ever"),
    "run.log_every_steps": NEVER,
    "run.validate_every_steps": NEVER,
    "run.sample_every_steps": NEVER,
    "run.sample_weights": FINITE,
    "run.sample_pictures": FROM_ONE,
    "run.sample_steps": FROM_ONE,
}


def check_ranges(config: Config) -> None:
    """Raises ValueError, naming the key, for a number that is out of its range."""
    for name, allowed in RANGES.items():
        section, key = name.split(".")
        check_number(name, getattr(getattr(config, section), key), allowed)


def check_number(name: str, value: Any, allowed: Range) -> None:
    """Raises ValueError when a number, or one of several, is out of its range. name: of the key or option."""
    several = value if isinstance(value, tuple) else (value,)
    if not all(allowed.holds(number) for number in several):
        shown = list(value) if isinstance(value, tuple) else value
        words = "a finite number" if math.isinf(allowed.low) else allowed.words
        raise ValueError(f"{name} = {shown} should be {words}")
