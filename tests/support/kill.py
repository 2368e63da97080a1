"""Kill a cache and a training again and again, go on each time, and compare the end with one that was left alone.

    python -m tests.support.kill --folder out/kill-test --out docs/kill-test.md

Each kill is of a way (a signal, and who gets it) and of a moment, which is seen in the run's own files while its first
process stands still (`moments`). A line for each is kept in the folder: stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from tests.support import moments, runs
from tests.support.kill_report import Done, Kill, Outcome, report
from trainer.data.shards import SMALL
from trainer.run import checkpoint
from trainer.settings.config import Config

MODES = {
    "one process": {"parallel": "none", "processes": 1, "batch_size": 4},
    "two processes, DDP": {"parallel": "ddp", "processes": 2, "batch_size": 2},
    "two processes, ZeRO-2": {"parallel": "zero2", "processes": 2, "batch_size": 2},
}
STEPS = 12  # of the training, for each of its kills: enough to reach any moment


def _plan() -> dict[str, list[Kill]]:
    """Forty: every way of one process in every moment, and ten of two processes."""
    ways = [
        *((name, target) for name in ("SIGTERM", "SIGINT") for target in ("process group", "main process")),
        ("SIGKILL", "main process"), ("SIGKILL", "every process"),
    ]  # fmt: skip
    names = ("train", "save", "validation", "grid")
    one = [Kill(*way, "cache") for way in ways]
    one += [Kill(*ways[(turn + place) % 6], names[place]) for turn in range(6) for place in range(4)]
    two = [
        ("SIGTERM", "launcher", "train"), ("SIGTERM", "last rank", "save"), ("SIGKILL", "last rank", "validation"),
        ("SIGTERM", "first rank", "grid"), ("SIGKILL", "launcher", "train"), ("SIGKILL", "first rank", "save"),
        ("SIGTERM", "process group", "validation"), ("SIGINT", "launcher", "grid"),
        ("SIGKILL", "every process", "save"), ("SIGTERM", "every process", "train"),
    ]  # fmt: skip
    return {"one process": one, "two processes, DDP": [Kill(*values) for values in two]}


PLAN = _plan()


def kill_test(folder: Path, mode: str, kills: Sequence[Kill], at_most: int | None = None) -> Outcome:
    """Do those of the kills that the folder does not know of yet, at most so many, and compare if all are done."""
    left, killed = _configs(folder, mode, kills)
    book = folder / "kills.jsonl"
    done = [_read(line) for line in book.read_text().splitlines()] if book.exists() else []
    for kill in kills[len(done) :][:at_most]:
        done.append(_do(folder, killed, kill, draw=random.Random(len(done))))
        with book.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(done[-1])) + "\n")
        print(f"{mode}, {len(done)} of {len(kills)}: {done[-1]}", flush=True)
    return _compare(folder, left, killed, done) if len(done) == len(kills) else Outcome(done, len(kills))


def _configs(folder: Path, mode: str, kills: Sequence[Kill]) -> tuple[Config, Config]:
    """Of the run that is left alone, and of the one that is killed; written in the folder."""
    found = []
    has_cache = any(kill.moment == "cache" for kill in kills)
    steps = STEPS * sum(kill.moment != "cache" for kill in kills)
    run = MODES[mode] | moments.DUE | {"steps": steps, "sample_steps": 2, "sample_pictures": 1, "keep_last": 2}
    optimiser = {"ema": 0.9, "learning_rate": 1e-2, "schedule": "cosine", "warmup_steps": 4}
    for name in ("left", "killed"):
        data = {"workers": 1, "held_out": 4, "cache": str(folder / f"{name}-cache") if has_cache else ""}
        made = runs.tiny_config(folder, data=data, run=run | {"folder": str(folder / name)}, optimiser=optimiser)
        if has_cache and not (folder / f"{name}.toml").exists():  # a cache of several files
            rows = [{"image_file": f"{number % 12}.png", "text": f"text {number}"} for number in range(3 * SMALL + 40)]
            (folder / "data" / "data.json").write_text(json.dumps(rows))
        runs.write_config(made, folder / f"{name}.toml")
        found.append(made)
    if has_cache:
        runs.run("cache", folder / "left.toml")
    return found[0], found[1]


def _do(folder: Path, config: Config, kill: Kill, draw: random.Random) -> Done:
    """Start or go on, kill it in its moment, and look at what it has left."""
    place, cache, is_cache = Path(config.run.folder), Path(config.data.cache), kill.moment == "cache"
    if not is_cache and config.data.cache and not place.exists():
        runs.run("cache", folder / "killed.toml")
    before, since = moments.shards(cache) if is_cache else _logged(place), time.time()
    number = draw.randint(1, 3)  # of the moments at which it could be killed
    started: list[str | Path] = ["cache" if is_cache else "train", folder / "killed.toml"]
    if not is_cache and (place / "config.toml").exists():
        started = ["resume", place]
    process = runs.spawn(started, has_group=True)
    passed: set[int] = set()

    def is_now() -> bool:
        if is_cache:
            return before < moments.shards(cache) < moments.shards(folder / "left-cache")
        moment, step = moments.of_run(config, since)
        passed.update([step] if moment == kill.moment else [])
        return moment == kill.moment and (kill.moment != "train" or len(passed) >= number)

    try:
        first = moments.held_at(process, is_now)
        step, saved = (moments.shards(cache),) * 2 if is_cache else (_logged(place), _saved(place))
        family = runs.family(process)
        runs.send(process, getattr(signal, kill.signal), kill.target)
        if first.is_running():
            first.resume()
        output, _ = process.communicate(timeout=moments.PATIENCE)
    finally:
        if process.poll() is None:
            runs.kill(runs.family(process))
    reached, after = (moments.shards(cache),) * 2 if is_cache else (_logged(place), _saved(place))
    done = Done(kill, step, saved, reached, after, process.returncode, [])
    done.faults.extend(_faults(done, output, config))
    if left := psutil.wait_procs(family, timeout=30)[1]:
        done.faults.append(f"{len(left)} processes live on")
    return done


def _faults(done: Done, output: str, config: Config) -> list[str]:
    """What is not as docs/training.md says."""
    kill, found = done.kill, []
    code = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 0, "SIGINT": 0}[kill.signal]
    if kill.moment == "cache":
        code = {"SIGTERM": -signal.SIGTERM, "SIGINT": 128 + signal.SIGINT}.get(kill.signal, code)
    elif kill.signal == "SIGKILL" and kill.target in ("first rank", "last rank"):
        code = 1
        rank = 0 if kill.target == "first rank" else config.run.processes - 1
        if f"error: the training has stopped: process {rank} was killed by SIGKILL" not in output:
            found.append(f"did not say that process {rank} was killed: {output[-2000:]}")
    if done.exit != code:
        found.append(f"exit code {done.exit}, not {code}: {output[-2000:]}")
    if done.after < done.saved:
        found.append(f"{done.saved} was saved and is gone")
    if kill.is_caught:
        if f"stopped and saved at step {done.after};" not in output or done.after != done.reached:
            found.append(f"reached step {done.reached}, saved {done.after}, said: {output[-2000:]}")
    elif kill.moment != "cache" and done.reached - done.after > config.run.save_every_steps:
        found.append(f"reached step {done.reached}, but saved is {done.after}")
    if "Traceback" in output:
        found.append(f"a traceback: {output[-2000:]}")
    return found


def _logged(place: Path) -> int:
    return max(runs.losses(place), default=0) if (place / "log.jsonl").exists() else 0


def _saved(place: Path) -> int:
    return max(checkpoint.steps_of(place), default=0)


def _read(line: str) -> Done:
    values = json.loads(line)
    return Done(Kill(**values.pop("kill")), **values)


def _compare(folder: Path, left: Config, killed: Config, done: list[Done]) -> Outcome:
    """Let both runs end, and compare weights, optimiser state, EMA, losses, validations, grids, and the caches."""
    runs.run("resume", killed.run.folder)
    whole, other = _left_alone(folder), Path(killed.run.folder)
    one, two = runs.final_state(whole), runs.final_state(other)
    assert one.keys() == two.keys()
    largest = max(float((one[key].double() - two[key].double()).abs().max()) for key in one)
    others = [key for key in one if not torch.equal(one[key], two[key])]
    others += ["losses"] * (runs.losses(whole) != runs.losses(other))
    ours, theirs = runs.losses(other, "held_out_loss"), runs.losses(whole, "held_out_loss")
    others += ["validations"] * (ours != theirs)
    grids, wanted = (_files(run / "samples") for run in (other, whole))
    others += ["grids"] * (grids != wanted)
    if left.data.cache:
        caches = [_files(Path(config.data.cache)) for config in (left, killed)]
        others += ["cache"] * (caches[0] != caches[1])
    counts = (len(ours), len(theirs)), (len(grids), len(wanted))
    numbers = sum(value.numel() for value in one.values())
    return Outcome(done, len(done), len(one), numbers, largest, *counts, others)


def _left_alone(folder: Path) -> Path:
    if not (folder / "left" / "config.toml").exists():
        runs.run("train", folder / "left.toml")
    return folder / "left"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/kill-test"), help="remove it to begin anew")
    parser.add_argument("--at-most", type=int, help="kills of each mode this time; all by default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    outcomes = {}
    for mode, kills in PLAN.items():
        folder = options.folder.resolve() / mode.replace(",", "").replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        outcomes[mode] = kill_test(folder, mode, kills, options.at_most)
    text = report(outcomes)
    print(text)
    if options.out:
        options.out.write_text(text)
    return 0 if all(outcome.is_good for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
