"""What the measures of controls have in common: how many references, and a table of shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ..figures import Figure, Findings

COUNT = 96  # references of each setting: a third as many as the claims have, so that all settings are minutes


def add_table(
    found: Findings,
    first: str,
    head: Sequence[str],
    rows: Mapping[str, Sequence[Figure | None]],
    more: tuple[str, Sequence[str]] | None = None,
) -> None:
    """A table of shares in percent, None where there is nothing to count; `more`: a last column, head and values."""
    last = [[value] for value in more[1]] if more else [[]] * len(rows)
    lines = [
        [name, str(next(figure.count for figure in figures if figure)), *map(_said, figures), *extra]
        for (name, figures), extra in zip(rows.items(), last, strict=True)
    ]
    found.table([first, "n", *head, *([more[0]] if more else [])], lines)
    for name, figures in rows.items():
        named = zip(head, figures, strict=True)
        found.figures[f"{first}: {name}"] = {one: dataclasses.asdict(figure) for one, figure in named if figure}


def _said(figure: Figure | None) -> str:
    return "" if figure is None else figure.percent
