"""Figures with their intervals, the bars they are held to, and the part of the page that a claim fills."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ipadapter_core.files.whole import whole
from trainer.evaluation.figures import Figure
from trainer.evaluation.figures import mean as mean_of

from ..world.scenes import ATTRIBUTES

RESAMPLES, COVERED = 2_000, 0.95
NAMES = (*ATTRIBUTES, "all five")


def mean(values: Tensor) -> Figure:
    """Of values [N], one for each picture, with its bootstrap interval of 95 %."""
    found = mean_of(values.double(), RESAMPLES, COVERED)
    assert found is not None, "no picture, or none with a value"
    return found


def shares(right: Tensor) -> list[Figure]:
    """Of right attributes [N, 5]: one for each, and all five at once."""
    return [*(mean(one) for one in right.unbind(1)), mean(right.all(1))]


def percents(figures: Sequence[Figure]) -> list[str]:
    return [figure.percent for figure in figures]


@dataclass(frozen=True)
class Bar:
    """What was demanded, and whether it was reached."""

    what: str
    wanted: str
    found: str
    is_reached: bool

    def __str__(self) -> str:
        return f"{'reached' if self.is_reached else 'MISSED '}  {self.what}: {self.found}, wanted {self.wanted}"


@dataclass
class Findings:
    """What a claim found: the lines of its part of the page, the figures as they are, the bars."""

    title: str
    lines: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)

    def say(self, *text: str) -> None:
        self.lines += [*text, ""]

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [head, ["---"] * len(head), *rows]
        self.say(*(f"| {' | '.join(line)} |" for line in lines))

    def agreements(self, first: str, rows: dict[str, Tensor], more: dict[str, Sequence[str]] | None = None) -> None:
        """A table of shares of right attributes [N, 5], in percent; `more`: columns after them, by their heads."""
        found = {name: shares(right) for name, right in rows.items()}
        more = more or {}
        columns = list(zip(*more.values(), strict=True)) or [()] * len(rows)
        self.table(
            [first, "n", *NAMES, *more],
            [
                [name, str(figures[0].count), *percents(figures), *extra]
                for (name, figures), extra in zip(found.items(), columns, strict=True)
            ],
        )
        for name, figures in found.items():
            values = (dataclasses.asdict(figure) for figure in figures)
            self.figures[f"{first}: {name}"] = dict(zip(NAMES, values, strict=True))

    def picture(self, name: str, text: str) -> None:
        self.say(f"![{text}](evidence/{name})")

    def at_least(self, what: str, figure: Figure | float, wanted: float) -> None:
        """A bar that a share has to reach."""
        value = figure.value if isinstance(figure, Figure) else figure
        found = figure.percent if isinstance(figure, Figure) else f"{100 * value:.1f}"
        self.bars.append(Bar(what, f"at least {100 * wanted:g} %", f"{found} %", value >= wanted))

    def holds(self, what: str, wanted: str, found: str, is_reached: bool) -> None:
        """A bar of another kind."""
        self.bars.append(Bar(what, wanted, found, bool(is_reached)))

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


def read_findings(path: Path) -> Findings:
    values = json.loads(path.read_text(encoding="utf-8"))
    return Findings(**values | {"bars": [Bar(**bar) for bar in values["bars"]]})
