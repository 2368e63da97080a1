"""A training step's speed and memory: ours with and without caches, the reference's loop, and the least it can cost.

    python bench/training.py [--check] [--pixels 512] [--tiny]
    python bench/training.py --device cuda [--check] [--full]     (bench/steps/cuda.py)

SD1.5 and ViT-H at full size with random weights, batch 1. Each row runs in a process of its own, in turns and in
rotating order, for some steps, the fastest of which counts: what else a machine does only ever adds time. Figures are
medians over the rounds, ratios medians of each round's ratio:

- reference: decodes, and runs VAE, text and image encoder for every sample at every step, the UNet in fp32
- cached, uncached: `python -m trainer` with and without data.cache, everything that its loop does in a step
- floor: forward and backward of the frozen UNet with the adapter's layers, all inputs given, nothing else

Bars are held to samples/s; CPU time, that of all threads, is printed beside it. `--check` fails where a bar is missed.
Cached: at least 1.9 times (256 px) or 1.6 times (512 px) the reference's speed, or 0.97 of what the floor reaches where
that is less; 0.9 times the floor's; at most 0.7 of the reference's peak memory; less than 2 % of the time waiting for
data; no wait of the host for its device. Uncached: at least 0.95 times the reference's speed. Peak memory is
the process's, loading included.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

ROWS = ("reference", "cached", "uncached", "floor")
OF_REFERENCE, OF_FLOOR = {256: 1.9, 512: 1.6}, 0.97
UNCACHED, FLOOR, MEMORY, WAIT = 0.95, 0.9, 0.7, 0.02


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Steps of one row in this process: seconds and CPU seconds of each, peak memory in bytes, share of waiting."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    is_cuda, training = options.device == "cuda", None
    if options.row in ("reference", "floor"):
        from steps.reference import floor_step, reference_step

        made = (reference_step if options.row == "reference" else floor_step)(
            options.models, options.pixels, options.batch, options.device, dtype
        )
        step = lambda: (made(), 0.0)[1]  # noqa: E731
    else:
        step, training = our_step(options)
    walls, cpus, waits = [], [], []
    for number in range(-options.warm_up, options.steps):
        if is_cuda:
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        waited = step()
        if is_cuda:
            torch.cuda.synchronize()
        if number >= 0:
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
            waits.append(waited)
    peak = torch.cuda.max_memory_allocated() if is_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    of_ours = around_the_base(training) if training else {}
    return {"seconds": min(walls), "cpu": min(cpus), "peak": peak, "wait": sum(waits) / sum(walls)} | of_ours


def around_the_base(training: Any) -> dict[str, Any]:
    """Seconds and waits of a step beside base and loader, which give at once what they gave before."""
    from tests.support.waits import Waits

    step, found = training.training_step, []
    training.ahead.batches = itertools.repeat(next(training.ahead.batches))
    given = dataclasses.replace(step, engine=lambda *inputs: found[0])
    training.training_step = dataclasses.replace(
        step, engine=lambda *inputs: found.append(step.engine(*inputs)) or found[0]
    )
    with Waits() as waits:
        training.launch(1e-4)
    training.training_step, walls = given, []
    for _ in range(5):
        began = time.perf_counter()
        training.launch(1e-4).wait()
        walls.append(time.perf_counter() - began)
    return {"around": min(walls), "waits": sum(waits.found.values())}


def our_step(options: argparse.Namespace) -> tuple[Any, Any]:
    """One optimiser step of the real loop, which gives the seconds that it waited for data; and the loop."""
    from trainer.run.loop import Training
    from trainer.run.parallel.start import start
    from trainer.run.stop import Stop

    config = our_config(options, with_cache=options.row == "cached")
    run = Path(tempfile.mkdtemp(dir=options.models))
    training = Training(config, run, start(config), Stop())
    training.begin()

    def step() -> float:
        late = training.launch(config.optimiser.learning_rate)
        training.step += 1
        late.wait()
        return late.waited

    return step, training


def our_config(options: argparse.Namespace, with_cache: bool) -> Any:
    from trainer.settings.load import load_config

    models = options.models
    values = {
        "model.base": models / "base",
        "model.encoder": models / "encoder",
        "data.source": models / "data" / "train.json",
        "data.cache": models / f"cache-{options.pixels}-{options.dtype}" if with_cache else "",
    }
    plain = {
        "data.resolution": options.pixels, "data.workers": 0, "run.steps": 10_000, "run.batch_size": options.batch,
        "run.processes": 1, "run.sample_every_steps": 0, "run.validate_every_steps": 0,
    } | ({"data.workers": 2} if options.device == "cuda" else {})  # fmt: skip
    words = {
        "run.parallel": "none", "run.device": options.device, "run.precision": options.dtype, "run.folder": "",
        "run.engine": getattr(options, "engine", "auto"),
    }  # fmt: skip
    texts = {key: json.dumps(str(value)) for key, value in (values | words).items()}
    settings = [f"{key}={value}" for key, value in (texts | plain).items()]
    return load_config("sd15", [*settings, "run.trackers=[]"])


def build_cache(options: argparse.Namespace) -> dict[str, Any]:
    from trainer.commands.cache import build_cache as build

    build(our_config(options, with_cache=True))
    return {}


def write_models(options: argparse.Namespace) -> dict[str, Any]:
    from steps.models import write_models as write

    write(options.models, options.tiny)
    return {}


def run_row(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run this script again for one row, in a process of its own."""
    command = [
        sys.executable, __file__, "--row", row, "--models", options.models, "--pixels", options.pixels, "--batch",
        options.batch, "--steps", options.steps, "--warm-up", options.warm_up, "--device", options.device,
        "--dtype", options.dtype, *(["--tiny"] if options.tiny else []),
    ]  # fmt: skip
    # threads that wait for work sleep instead of spinning, so that CPU time is of work alone
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "passive"}
    environment = threads | dict(os.environ) | {"HF_HUB_OFFLINE": "1"}
    found = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"{row} failed:\n{found.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def ratio(rounds: list[dict[str, Any]], name: str, upper: str, lower: str) -> float:
    """The median over rounds of one row's figure divided by another's."""
    return statistics.median(figures[upper][name] / figures[lower][name] for figures in rounds)


def bars(rounds: list[dict[str, Any]], options: argparse.Namespace) -> list[tuple[str, float, str, float]]:
    """What was reached and what is asked for: name, value, "least" or "most", limit."""
    # where the floor itself is hardly faster than the reference, there is nothing left to gain
    least = min(OF_REFERENCE.get(options.pixels, 1.0), OF_FLOOR * ratio(rounds, "seconds", "reference", "floor"))
    wait = statistics.median(figures["cached"]["wait"] for figures in rounds)
    return [
        ("cached, times the reference's speed", ratio(rounds, "seconds", "reference", "cached"), "least", least),
        ("uncached, times the reference's speed", ratio(rounds, "seconds", "reference", "uncached"), "least", UNCACHED),
        ("cached, times the floor's speed", ratio(rounds, "seconds", "floor", "cached"), "least", FLOOR),
        ("cached, share of the reference's peak memory", ratio(rounds, "peak", "cached", "reference"), "most", MEMORY),
        ("cached, share of time waiting for data", wait, "most", WAIT),
        ("cached, waits for the device in a step", max(one["cached"]["waits"] for one in rounds), "most", 0),
    ]


def report(rounds: list[dict[str, Any]], options: argparse.Namespace) -> bool:
    """Print the table and one JSON line; whether every bar is reached."""
    size = "tiny models" if options.tiny else "SD1.5 and ViT-H"
    print(f"{size}, {options.pixels} px, batch {options.batch}, {options.dtype} on {options.device}, "
          f"{len(rounds)} rounds of {options.steps} steps")  # fmt: skip
    print(f"{'':12}{'samples/s':>12}{'CPU s/sample':>14}{'peak GiB':>10}{'data wait':>11}{'speed':>9}{'by CPU':>9}")
    rows = {}
    for row in ROWS:
        middle = {
            name: statistics.median(figures[row][name] for figures in rounds)
            for name in ("seconds", "cpu", "peak", "wait")
        }
        rows[row] = {
            "samples_per_second": round(options.batch / middle["seconds"], 4),
            "cpu_seconds": round(middle["cpu"] / options.batch, 3),
            "peak_gib": round(middle["peak"] / 2**30, 2),
            "data_wait": round(middle["wait"], 5),
            "speed_of_reference": round(ratio(rounds, "seconds", "reference", row), 3),
            "speed_of_reference_by_cpu": round(ratio(rounds, "cpu", "reference", row), 3),
        }
        figures = rows[row]
        wait = f"{figures['data_wait']:.3%}" if row in ("cached", "uncached") else ""
        print(f"{row:12}{figures['samples_per_second']:12.4f}{figures['cpu_seconds']:14.2f}"
              f"{figures['peak_gib']:10.2f}{wait:>11}{figures['speed_of_reference']:8.2f}x"
              f"{figures['speed_of_reference_by_cpu']:8.2f}x")  # fmt: skip
    around = statistics.median(figures["cached"]["around"] for figures in rounds)
    print(f"a cached step without base and loader: {1e3 * around:.1f} ms")
    found, is_good = bars(rounds, options), True
    for name, value, kind, limit in found:
        is_reached = value >= limit if kind == "least" else value <= limit
        is_good &= is_reached
        print(f"{name:48}{value:8.3f}, at {kind} {limit:<5} {'reached' if is_reached else 'MISSED'}")
    settings = {
        "bench": "training",
        "device": options.device,
        "dtype": options.dtype,
        "pixels": options.pixels,
        "tiny": options.tiny,
    }
    print(
        json.dumps(
            settings
            | {"rows": rows, "around_the_base": around, "bars": {name: round(value, 4) for name, value, *_ in found}}
        )
    )
    return is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail where a bar is missed")
    parser.add_argument("--pixels", type=int, default=256, help="256 or 512")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: engines, bf16, 512 px, batch 8")
    parser.add_argument("--full", action="store_true", help="cuda: batch 32 compiled too")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="cuda: these rows alone, by their names")
    parser.add_argument("--runs", type=int, default=4, help="cuda: runs of --steps steps, of which the median counts")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="this one alone")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of each row in each round")
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the bench itself")
    parser.add_argument("--models", type=Path, help="folder that keeps the random models; made where it is not there")
    parser.add_argument("--as-cuda", action="store_true", help="the rows of --device cuda on a CPU, to try the bench")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        act = {"models": write_models, "cache": build_cache}.get(options.row, measure)
        print(json.dumps(act(options)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        same = vars(options) | {"models": options.models or Path(temporary) / "models"}
        if options.device == "cuda" or options.as_cuda:
            from steps import cuda

            steps = {"pixels": options.pixels if options.tiny else 512, "dtype": options.dtype or "bf16", "steps": 10}
            is_good = cuda.compare(argparse.Namespace(**same | steps), our_config)
        else:
            is_good = compare(argparse.Namespace(**same | {"dtype": options.dtype or "fp32"}))
    return 0 if is_good or not options.check else 1


def compare(options: argparse.Namespace) -> bool:
    """Measure all rows in turns at one precision, and print them."""
    if not options.models.exists():
        run_row("models", options)
    run_row("cache", options)
    rounds = []
    for number in range(options.rounds):
        order = ROWS[number % len(ROWS) :] + ROWS[: number % len(ROWS)]
        rounds.append({row: run_row(row, options) for row in order})
    return report(rounds, options)


if __name__ == "__main__":
    sys.exit(main())
