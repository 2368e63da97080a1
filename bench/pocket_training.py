"""How long `python -m pocket` takes from nothing, stage after stage, with all threads.

    python bench/pocket_training.py [--check] [STAGE ...]

Every stage runs as it is, with its data, its report and its own recipe, in folders that are thrown away; only its
trainings stop after STEPS or RUN_STEPS steps, and what is missing is added: the steps of the recipe that were not done
times the seconds of one. Run it alone: beside another job, threads that wait make a step many times slower. `--check`
fails unless all stages together take at most three hours.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from pocket.__main__ import KEPT, STAGES
from pocket.places import Places
from pocket.training import adapters, autoencoder, base, control, judge, look, shuffle, text, vision
from pocket.training.fitting import Loss, Recipe, fit
from trainer.settings.load import load_config

LIMIT = 180  # minutes
STEPS, RUN_STEPS = 30, 120  # of each fit, of each run of the trainer
train_adapter = adapters.run


@dataclasses.dataclass
class Training:
    """One training of a stage: the steps of its recipe, those done, and the seconds of one."""

    steps: int
    done: int
    seconds: float

    @property
    def missing(self) -> float:
        return (self.steps - self.done) * self.seconds


found: list[Training] = []  # of the stage that runs


def short_fit(name: str, module: nn.Module, loss: Loss, recipe: Recipe, folder: Path) -> float:
    seconds = fit(name, module, loss, dataclasses.replace(recipe, steps=STEPS), folder)
    found.append(Training(recipe.steps, STEPS, seconds / STEPS))
    return seconds


def short_run(name: str, settings: dict[str, Any], folder: Path, out: Path) -> None:
    steps = settings.get("run.steps", load_config(adapters.preset(name)).run.steps)
    train_adapter(name, settings | {"run.steps": RUN_STEPS}, folder, out)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    first, *_, last = (line for line in lines if "loss" in line)
    seconds = (last["time"] - first["time"]) / (last["step"] - first["step"])
    found.append(Training(steps, RUN_STEPS, seconds))


def measure(name: str, places: Places) -> dict[str, Any]:
    """A stage's trainings and its minutes in all."""
    found.clear()
    began = time.monotonic()
    STAGES[name].train(places)
    STAGES[name].report(places)
    spent = time.monotonic() - began
    return {
        "steps": [training.steps for training in found],
        "seconds a step": [round(training.seconds, 3) for training in found],
        "minutes": round((spent + sum(training.missing for training in found)) / 60, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all by default")
    parser.add_argument("--check", action="store_true", help="fail where the bar is missed or a stage not measured")
    options = parser.parse_args()
    for module in (autoencoder, base, control, judge, look, shuffle, text, vision):
        module.fit = short_fit  # type: ignore[attr-defined]
    adapters.run = short_run
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder, "weights"), Path(folder, "work"))
        shutil.copytree(Places.weights, places.weights)
        for name in options.stages or KEPT:
            figures[name] = measure(name, places)
    print(f"{'stage':14}{'steps':>14}{'seconds of one':>18}{'minutes':>10}")
    for name, stage in figures.items():
        steps, seconds = (" + ".join(map(str, stage[key])) for key in ("steps", "seconds a step"))
        print(f"{name:14}{steps:>14}{seconds:>18}{stage['minutes']:>10}")
    minutes = sum(stage["minutes"] for stage in figures.values())
    print(f"together {minutes:.0f} minutes with {torch.get_num_threads()} threads; at most {LIMIT} wanted")
    print(json.dumps({"stages": figures, "minutes": round(minutes, 1), "threads": torch.get_num_threads()}))
    return int(options.check and (minutes > LIMIT or figures.keys() != set(KEPT)))


if __name__ == "__main__":
    sys.exit(main())
