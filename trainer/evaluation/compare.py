"""Two results of the same references: does a system of the second differ from one of the first by more than chance?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .figures import difference, of_references
from .protocol import FREE, differences
from .scores import MEASURES
from .table import TITLES, told


def compare(first: str, second: str) -> str:
    """A report in lines. Each is FILE, or FILE:SYSTEM where one of several systems is meant.

    Raises ValueError when a file is no result, or their protocols, judges or references are not the same.
    """
    (one, name), (other, other_name) = _read(first), _read(second)
    wrong = differences(one["protocol"], other["protocol"], but=FREE)
    wrong += [f"the judge {kind}" for kind in one["judges"] if one["judges"][kind] != other["judges"].get(kind)
              and kind in other["judges"]]  # fmt: skip
    if one["keys"] != other["keys"] or one["data"]["digest"] != other["data"]["digest"]:
        wrong.append(f"the references ({len(one['keys'])} and {len(other['keys'])})")
    if wrong:
        raise ValueError(
            f"{first} and {second} cannot be compared, they differ in: {'; '.join(wrong)}: measure both in one way"
        )
    pairs = [(name, other_name)] if name and other_name else _pairs(one, other, name, other_name)
    lines = []
    for mine, theirs in pairs:
        lines.append(f"{theirs} (second) less {mine} (first), {len(one['keys'])} references:")
        scores, others = one["scores"][mine], other["scores"][theirs]
        for measure in (measure for measure in MEASURES if measure in scores and measure in others):
            protocol = one["protocol"]
            made = difference(
                of_references(scores[measure]), of_references(others[measure]),
                protocol["resamples"], protocol["covered"],
            )  # fmt: skip
            if made:
                lines.append(f"  {TITLES[measure]}: {told(made)} (p {made.p:.3g}, {made.count} references)")
    return "\n".join(lines)


def _pairs(one: dict[str, Any], other: dict[str, Any], name: str, other_name: str) -> list[tuple[str, str]]:
    mine = [name] if name else [row["name"] for row in one["systems"]]
    theirs = [other_name] if other_name else [row["name"] for row in other["systems"]]
    if len(mine) == len(theirs) == 1:
        return [(mine[0], theirs[0])]
    if len(mine) == 1 or len(theirs) == 1:
        return [(a, b) for a in mine for b in theirs if (one is not other) or a != b]
    if shared := [name for name in mine if name in theirs]:
        return [(name, name) for name in shared]
    raise ValueError(
        f"the results have no system in common ({', '.join(mine)}; {', '.join(theirs)}): name two, FILE:SYSTEM"
    )


def _read(word: str) -> tuple[dict[str, Any], str]:
    """A result, and the system that is meant ("" = all)."""
    path, name = Path(word), ""
    if not path.is_file() and ":" in word:
        file, _, name = word.rpartition(":")
        path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no result {word}: give the result.json of a run, or result.json:SYSTEM")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = [row["name"] for row in found["systems"]]
        _ = found["protocol"], found["keys"], found["scores"], found["judges"], found["data"]["digest"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no result of `evaluate`: give the result.json of a run") from error
    if name and name not in names:
        raise ValueError(f"{path} has no system {name!r}: it has {', '.join(names)}")
    return found, name
