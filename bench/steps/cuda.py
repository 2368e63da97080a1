"""Steps per second on a GPU: the reference's loop, ours by each engine, and the floor, launched and as a graph.

Weights are made on the device; each row runs in a process of its own, forked before CUDA is touched, so that nothing is
imported twice. Steps are timed in runs of several, without waiting in between, as a training runs them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

OF_REFERENCE, OF_REFERENCE_COMPILED, OF_FLOOR, WAIT = 3.0, 3.6, 0.95, 0.01
LOSS_AT = 50  # the step whose loss is compared between engines


@dataclass(frozen=True)
class Row:
    """kind: reference, floor, or one of ours. engine: of ours run.engine; of the floor plain or graph."""

    kind: str
    engine: str
    batch: int

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.engine}" if self.kind != "reference" else self.kind


def rows(is_full: bool) -> list[Row]:
    small = [Row("reference", "plain", 8), *(Row("ours", engine, 8) for engine in ("plain", "graph", "compiled"))]
    floors = [Row("floor", "plain", 8), Row("floor", "graph", 8), Row("floor", "graph", 32), Row("ours", "graph", 32)]
    return small + floors + ([Row("ours", "compiled", 32)] if is_full else [])


def compare(options: argparse.Namespace, our_config: Callable[..., Any]) -> bool:
    """Measure all rows, print them with their bars and one JSON line; whether every bar is reached."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking for a GPU must not begin CUDA in this process
    import_all()
    from trainer.commands.profile import peak_of

    forked(write_models, options)
    print(f"weights and cache: {forked(write_cache, options, our_config)['seconds']:.0f} s", flush=True)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    flop = 0.0
    print(f"{'':18}{'batch':>6}{'samples/s':>11}{'ms a step':>11}{'MFU':>7}{'wait':>8}{'syncs':>7}{'peak GiB':>10}"
          f"{'first s':>9}{'loss 50':>10}{'row s':>7}")  # fmt: skip
    wanted = [row for row in rows(options.full) if not options.only or row.name in options.only]
    for row in [Row("count", "plain", 8), *wanted]:
        began = time.perf_counter()
        made = forked(measure, options, row, our_config)
        if row.kind == "count":
            flop, device = made.get("flop", 0.0), made.get("device", "a GPU")
            peak = peak_of(device) or 0.0
            what = f"{options.dtype}, {options.pixels} px, {flop / 1e12:.3f} TFLOP a sample"
            print(f"{device}, torch {made.get('torch')}, {what}", flush=True)
            continue
        if "error" in made:
            continue
        rate = row.batch / made["seconds"]
        mfu = flop * rate / peak if peak else 0.0
        found[row.name, row.batch] = made | {"samples_per_second": rate, "mfu": mfu}
        loss, syncs, wait = (made.get(name) for name in ("loss", "syncs", "wait"))
        of_ours = (f"{wait:.2%}", str(syncs), f"{loss:.6f}") if row.kind == "ours" else ("", "", "")
        print(f"{row.name:18}{row.batch:6}{rate:11.1f}{1e3 * made['seconds']:11.1f}{mfu:7.1%}{of_ours[0]:>8}"
              f"{of_ours[1]:>7}{made['peak'] / 2**30:10.1f}{made['first']:9.1f}{of_ours[2]:>10}"
              f"{time.perf_counter() - began:7.0f}", flush=True)  # fmt: skip
    if len(found) < len(wanted):
        print("not every row ran")
    return _report(options, device, flop, found) and len(found) == len(wanted)


def _report(options: argparse.Namespace, device: str, flop: float, found: dict[tuple[str, int], Any]) -> bool:
    def rate(name: str) -> float:
        return float(found[name, 8]["samples_per_second"]) if (name, 8) in found else float("nan")

    ours = [row for (name, _), row in found.items() if name.startswith("ours")]
    bars = [
        ("graph, times the reference", rate("ours, graph") / rate("reference"), "least", OF_REFERENCE),
        ("graph, times the graphed floor", rate("ours, graph") / rate("floor, graph"), "least", OF_FLOOR),
        ("compiled, times the reference", rate("ours, compiled") / rate("reference"), "least", OF_REFERENCE_COMPILED),
        ("largest share of waiting for data", max((row["wait"] for row in ours), default=0), "most", WAIT),
        ("synchronisations in a step", max((row["syncs"] for row in ours), default=0), "most", 0),
    ]
    bars = [bar for bar in bars if bar[1] == bar[1]]  # without those of rows that did not run
    is_good = True
    for name, value, kind, limit in bars:
        is_reached = value >= limit if kind == "least" else value <= limit
        is_good &= is_reached
        print(f"{name:40}{value:8.3f}, at {kind} {limit:<5} {'reached' if is_reached else 'MISSED'}")
    figures = {f"{name}, batch {batch}": row for (name, batch), row in found.items()}
    settings = {"bench": "training", "device": device, "dtype": options.dtype, "pixels": options.pixels}
    print(
        json.dumps(
            settings | {"tflop": flop / 1e12, "rows": figures, "bars": {name: value for name, value, *_ in bars}}
        )
    )
    return is_good


def import_all() -> None:
    """What every row imports, before they are forked."""
    import steps.reference  # noqa: F401

    import trainer.commands.cache
    import trainer.run.loop  # noqa: F401


def forked(act: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """What `act` gives, in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_sent, args=(there, act, given))
    process.start()
    there.close()
    try:
        found: dict[str, Any] = here.recv()
    except EOFError:
        found = {"error": f"ended with {process.exitcode}"}
    process.join()
    if "error" in found:
        print(f"{act.__name__} {given[1:2]} failed:\n{found['error']}", flush=True)
    return found


def _sent(there: Connection, act: Callable[..., dict[str, Any]], given: Any) -> None:
    try:
        there.send(act(*given))
    except BaseException:  # noqa: BLE001, it is raised again in the parent
        there.send({"error": traceback.format_exc()[-4000:]})


def write_models(options: argparse.Namespace) -> dict[str, Any]:
    from steps.models import write_models as write

    if not options.models.exists():
        write(options.models, options.tiny, options.device)
    return {}


def write_cache(options: argparse.Namespace, our_config: Callable[..., Any]) -> dict[str, Any]:
    from trainer.commands.cache import build_cache

    began = time.perf_counter()
    build_cache(our_config(options, with_cache=True))
    return {"seconds": time.perf_counter() - began}


def measure(options: argparse.Namespace, row: Row, our_config: Callable[..., Any]) -> dict[str, Any]:
    """One row: median seconds of a step, peak memory, seconds of the first step; of ours also waits and a loss."""
    import torch

    options = argparse.Namespace(**vars(options) | {"batch": row.batch, "engine": row.engine})
    is_cuda = options.device == "cuda"
    sync: Callable[[], Any] = torch.cuda.synchronize if is_cuda else lambda: None
    if row.kind == "count":
        from steps.reference import floor_step
        from torch.utils.flop_counter import FlopCounterMode

        step = floor_step(options.models, options.pixels, row.batch, options.device, _dtype(options))
        with FlopCounterMode(display=False) as counter:
            step()
        name = torch.cuda.get_device_name() if is_cuda else "CPU"
        return {"flop": counter.get_total_flops() / row.batch, "device": name, "torch": torch.__version__}
    ours = None
    began = time.perf_counter()
    if row.kind == "ours":
        ours = Ours(options, our_config)
        step = ours.step
    else:
        step = _other(options, row)
    step()
    sync()
    first = time.perf_counter() - began
    for _ in range(2):
        step()
    sync()
    if ours:
        ours.waited = 0.0  # the loader has begun
    walls = []
    for _ in range(options.runs):
        sync()
        began = time.perf_counter()
        for _ in range(options.steps):
            step()
        sync()
        walls.append((time.perf_counter() - began) / options.steps)
    peak = torch.cuda.max_memory_allocated() if is_cuda else 0
    out: dict[str, Any] = {"seconds": statistics.median(walls), "peak": peak, "first": first}
    return out | (ours.figures(sum(walls) * options.steps) if ours else {})


def _dtype(options: argparse.Namespace) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]


def _other(options: argparse.Namespace, row: Row) -> Callable[[], Any]:
    from steps.reference import floor_step, reference_step

    from trainer.step.engine import captured

    make = reference_step if row.kind == "reference" else floor_step
    step = make(options.models, options.pixels, row.batch, options.device, _dtype(options))
    return captured(step)[0] if row.engine == "graph" and options.device == "cuda" else step


class Ours:
    """The real loop's steps, each read while the next one runs, as `Training.go` does."""

    def __init__(self, options: argparse.Namespace, our_config: Callable[..., Any]) -> None:
        from trainer.run.loop import Training
        from trainer.run.metrics import SAMPLES, WEIGHTED
        from trainer.run.parallel.start import start
        from trainer.run.stop import Stop

        self.sums = WEIGHTED, SAMPLES
        config = our_config(options, with_cache=True)
        self.rate = config.optimiser.learning_rate
        run = Path(options.models) / f"run-{options.engine}-{options.batch}"
        run.mkdir(exist_ok=True)
        self.training = Training(config, run, start(config), Stop())
        self.training.begin()
        self.before: Any = None
        self.waited, self.losses = 0.0, {}
        self.is_cuda = options.device == "cuda"

    def step(self) -> None:
        late = self.training.launch(self.rate)
        self.training.step += 1
        if self.before is not None:
            self._read(self.before)
        self.before = late

    def _read(self, late: Any) -> None:
        late.wait()
        weighted, samples = self.sums
        self.losses[late.step] = float(late.sums[weighted] / late.sums[samples])
        self.waited += late.waited

    def figures(self, seconds: float) -> dict[str, Any]:
        """Waiting and synchronisations, and the loss of a step that all engines reach."""
        import torch

        wait = self.waited / seconds
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            if self.is_cuda:
                torch.cuda.set_sync_debug_mode("warn")
            for _ in range(2):
                self.step()
            if self.is_cuda:
                torch.cuda.set_sync_debug_mode("default")
        # the first that is warned of is the switch itself
        syncs = [one for one in found if "synchroniz" in str(one.message) and "torch/cuda/__init__" not in one.filename]
        while self.training.step <= LOSS_AT:
            self.step()
        self.training.close()
        return {"wait": wait, "syncs": len(syncs), "loss": self.losses[LOSS_AT]}
