"""What a run says while it trains: a bar on a terminal, else short lines, of the first process alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from tqdm.auto import tqdm

from .validation import Validation

LINE_SECONDS = 30.0  # between two lines where there is no terminal: a log file should stay readable after weeks


class Progress:
    """Inside `with`. total, done: optimiser steps. is_hidden: on all processes but the first."""

    def __init__(self, total: int, done: int, is_hidden: bool) -> None:
        self.total, self.is_hidden = total, is_hidden
        self.is_terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=done, unit="step", dynamic_ncols=True, disable=is_hidden or not self.is_terminal
        )
        self.said = 0.0  # when the last line was written
        self.held_out = ""
        self.started, self.first = time.monotonic(), done

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()

    def update(self, step: int) -> None:
        """A step is done."""
        self.bar.update(step - self.bar.n)

    def say(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of the log's window, as `metrics.Window` gives them."""
        words = [
            f"loss {numbers['loss']:.4f}",
            f"rate {numbers['learning_rate']:.2e}",
            f"{numbers['samples_per_second']:.3g} samples/s",
            f"waits {numbers['data_wait']:.0%}",
            *filter(None, [self.held_out]),
        ]
        self.bar.set_postfix_str(", ".join(words), refresh=False)
        is_last, now = step == self.total, time.monotonic()
        if self.is_hidden or self.is_terminal or (now - self.said < LINE_SECONDS and not is_last):
            return
        self.said = now
        left = (now - self.started) / max(1, step - self.first) * (self.total - step)
        words += [] if is_last else [f"{duration(left)} left"]
        print(f"step {step:,}/{self.total:,}: {', '.join(words)}", file=sys.stderr, flush=True)

    def validated(self, step: int, found: Validation) -> None:
        """The held-out losses of a step: in every line from now on, and in one of their own."""
        self.held_out = f"held-out {found.loss:.4f}"
        if self.is_hidden:
            return
        line = (
            f"step {step:,}/{self.total:,}: {self.held_out} (no image {found.no_image:.4f}, "
            f"shuffled references {found.shuffled:.4f})"
        )
        tqdm.write(line, file=sys.stderr)


def duration(seconds: float) -> str:
    """A time in two units, e.g. "3 h 12 min"."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 2:
        return f"{int(days)} d {int(hours) % 24} h"
    if hours >= 1:
        return f"{int(hours)} h {int(minutes) % 60} min"
    return f"{int(minutes)} min {int(seconds) % 60} s" if minutes >= 1 else f"{int(seconds)} s"
