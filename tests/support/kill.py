"""Kill a training again and again, go on each time, and compare its end with that of a training that was left alone.

    python -m tests.support.kill --kills 20 --out docs/kill-test.md

Of three, one is kill -9 at a random step, one kill -9 at the moment when a checkpoint is being written, and one is
SIGTERM, in turn to the launcher, its process group, every process and one rank; after that, the run has to say that it
saved, and its exit code has to be 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.support import runs
from trainer.run import checkpoint
from trainer.settings.config import Config

MODES = {
    "one process": {"parallel": "none", "processes": 1, "batch_size": 4},
    "two processes, ZeRO-2": {"parallel": "zero2", "processes": 2, "batch_size": 2},
}
PATIENCE = 300  # seconds for a run to reach the moment of its kill


@dataclasses.dataclass
class Outcome:
    """What came of a kill test. largest: difference of any number of the final states."""

    kills: list[str]
    tensors: int
    numbers: int
    largest: float
    is_equal: bool


def kill_test(folder: Path, mode: str, kills: int, seed: int = 0) -> Outcome:
    """Train twice, once with `kills` kills, and compare the final weights, optimiser state and EMA."""
    steps = 8 * kills
    optimiser = {"ema": 0.9, "learning_rate": 1e-2, "schedule": "cosine", "warmup_steps": 4}
    left = runs.tiny_config(folder, run=MODES[mode] | {"steps": steps, "save_every_steps": 2}, optimiser=optimiser)
    killed = dataclasses.replace(left, run=dataclasses.replace(left.run, folder=str(folder / "killed")))
    runs.run("train", runs.write_config(left, folder / "left.toml"))
    draw, found = random.Random(seed), []
    arguments: list[str | Path] = ["train", runs.write_config(killed, folder / "killed.toml")]
    place = Path(killed.run.folder)
    for number in range(kills):
        process = runs.spawn(arguments, has_group=True)
        if number % 3 == 2:
            moment = _ask_to_stop(process, killed, draw, runs.WAYS[number // 3 % len(runs.WAYS)])
        else:
            moment = _kill_at_moment(process, killed, draw, is_saving=number % 3 == 1)
            process.communicate()
        parts = [path.name for path in checkpoint.folder(place).glob(".step-*")] if place.exists() else []
        newest = checkpoint.latest(place)
        found.append(
            f"{moment}; left {parts[0] if parts else 'nothing unfinished'}; newest {newest.name if newest else 'none'}"
        )
        started = (place / "config.toml").exists()
        arguments = ["resume", place] if started else arguments
    runs.run(*arguments)
    return _compare(left, killed, found)


def _wait(process: subprocess.Popen[str], place: Path, draw: random.Random) -> None:
    """Until one of the next steps."""
    wanted, began = _logged(place) + draw.randint(1, 6), time.monotonic()
    while _logged(place) < wanted:
        assert process.poll() is None, f"the run ended before it could be killed: {process.communicate()[0]}"
        assert time.monotonic() - began < PATIENCE, "the run did not reach the step of its kill"


def _ask_to_stop(process: subprocess.Popen[str], config: Config, draw: random.Random, way: str) -> str:
    place = Path(config.run.folder)
    _wait(process, place, draw)
    runs.ask_to_stop(process, way)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "stopped and saved at step" in output, output
    return f"SIGTERM to the {way} after step {_logged(place)}".replace("the every", "every").replace("the one", "one")


def _kill_at_moment(process: subprocess.Popen[str], config: Config, draw: random.Random, is_saving: bool) -> str:
    place = Path(config.run.folder)
    _wait(process, place, draw)
    family = runs.family(process)  # looked for before, so that the kill itself takes no time
    if not is_saving:
        time.sleep(draw.random() * 0.05)
        runs.kill(family)
        return f"after step {_logged(place)}"
    while not any(checkpoint.folder(place).glob(".step-*.part")):
        assert process.poll() is None, f"the run ended before it could be killed: {process.communicate()[0]}"
    time.sleep(draw.random() * 0.005)
    runs.kill(family)
    return f"while saving after step {_logged(place)}"


def _logged(place: Path) -> int:
    log = place / "log.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def _compare(left: Config, killed: Config, kills: list[str]) -> Outcome:
    one, other = runs.final_state(Path(left.run.folder)), runs.final_state(Path(killed.run.folder))
    assert one.keys() == other.keys()
    largest = max(float((one[key].double() - other[key].double()).abs().max()) for key in one)
    is_equal = all(torch.equal(one[key], other[key]) for key in one)
    is_equal &= runs.losses(Path(left.run.folder)) == runs.losses(Path(killed.run.folder))
    return Outcome(kills, len(one), sum(value.numel() for value in one.values()), largest, is_equal)


def report(mode: str, outcome: Outcome) -> str:
    lines = [f"## {mode}: {len(outcome.kills)} kills", ""]
    lines += [f"{number}. {text}" for number, text in enumerate(outcome.kills, 1)]
    verdict = "equal, bit for bit" if outcome.is_equal else "NOT equal"
    lines += [
        "",
        f"Final state: {outcome.tensors} tensors, {outcome.numbers:,} numbers, {verdict}; "
        f"largest difference {outcome.largest:g}.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    text, is_good = (
        [
            "# Kill test",
            "",
            "`make kill-test`: kill -9 of all processes, or SIGTERM; resume; compare with a run that was left alone.",
            "",
        ],
        True,
    )
    for mode in MODES:
        with tempfile.TemporaryDirectory() as folder:
            outcome = kill_test(Path(folder), mode, options.kills)
        is_good &= outcome.is_equal
        text.append(report(mode, outcome))
        print(text[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(text))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
