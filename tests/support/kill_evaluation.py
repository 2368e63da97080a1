"""Kill an evaluation at random moments, go on each time, and compare its result with that of one left alone.

python -m tests.support.kill_evaluation --kills 10
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support import evaluation, runs

PATIENCE = 300  # seconds for a run to reach the moment of its kill


@dataclass(frozen=True)
class Outcome:
    """When it was killed, by the files that were there; how many pictures; what is not the same, by name."""

    kills: list[int]
    pictures: int
    other: list[str]

    @property
    def is_same(self) -> bool:
        return not self.other


def kill_test(world: evaluation.World, whole: Path, folder: Path, kills: int, seed: int = 0) -> Outcome:
    """whole: the folder of a run that was left alone. Every other run is one of two processes."""
    draw, moments = random.Random(seed), []
    expected = _files(whole)
    for number in range(kills):
        there = _count(folder)
        process = runs.spawn(world.arguments(folder, "--processes", str(1 + number % 2)))
        wanted = there + draw.randint(1, max(1, (len(expected) - there) // (kills - number)))
        began = time.monotonic()
        while _count(folder) < wanted and process.poll() is None and time.monotonic() - began < PATIENCE:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.02))
        if process.poll() is None:
            runs.kill(runs.family(process))
        process.communicate()
        moments.append(_count(folder))
    runs.run(*world.arguments(folder))
    found = _files(folder)
    other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if (whole / "result.json").read_bytes() != (folder / "result.json").read_bytes():
        other.append("result.json")
    return Outcome(moments, len(expected), other)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "pictures").rglob("[!.]*.png")}


def _count(folder: Path) -> int:
    return sum(1 for _ in (folder / "pictures").rglob("[!.]*.png"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = evaluation.write_world(folder, 6)
        runs.run(*world.arguments(folder / "whole"))
        outcome = kill_test(world, folder / "whole", folder / "killed", options.kills)
    said = "the same" if outcome.is_same else f"NOT the same: {outcome.other}"
    print(f"killed {len(outcome.kills)} times, with {outcome.kills} of {outcome.pictures} pictures there")
    print(f"result and every picture {said}")
    return int(not outcome.is_same)


if __name__ == "__main__":
    sys.exit(main())
