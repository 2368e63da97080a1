"""`python -m trainer profile`: where the time of a step goes, on this machine and with this config."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ..run.loop import Training
from ..run.parallel.start import start
from ..run.stop import Stop
from ..settings.config import Config
from ..step.engine import Graph
from ..step.phases import NAMES, Clock
from ..step.schedule import learning_rate

WARM_UP = 5
# Dense half-precision products a second, by the makers' datasheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L4": 121e12,
         "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12, "V100": 125e12}  # fmt: skip


def run_profile(config: Config, steps: int, out: Path) -> str:
    """Train `steps` steps after a warm-up, nothing of which is kept; write a trace, and say where the time went.

    Raises ValueError as a training does, and for a config of several processes.
    """
    if config.run.processes > 1:
        raise ValueError(
            f"profile looks at one process, and run.processes is {config.run.processes}: give --set run.processes=1 "
            '--set run.parallel="none"'
        )
    run = dataclasses.replace(
        config.run, steps=WARM_UP + 2 * steps + 2, sample_every_steps=0, validate_every_steps=0, trackers=(), folder=""
    )
    config = dataclasses.replace(config, run=run)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        training = Training(config, Path(folder), start(config), Stop())
        try:
            return _profiled(training, steps, out)
        finally:
            training.close()


def _profiled(training: Training, steps: int, out: Path) -> str:
    device = training.parallel.device
    training.begin()
    flop = _counted(training)
    seconds_first = _timed(training, WARM_UP)
    seconds = _timed(training, steps) / steps
    timed, clock = steps // 2 or 1, Clock(device)
    with clock.running():
        _timed(training, timed)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as found:
        _timed(training, timed)
    trace = out / "trace.json"
    found.export_chrome_trace(str(trace))
    busy = _busy(found, device) / timed
    lines = [
        f"{_name(device)}, {_words(training.config)}: {1e3 * seconds:.1f} ms a step, "
        f"{training.config.samples_per_step / seconds:.1f} samples/s; the first {WARM_UP} took {seconds_first:.1f} s",
        "",
        f"{'part of a step':30}{'host ms':>10}{'device ms':>11}",
    ]
    of_device = clock.device()
    for name in NAMES:
        if name in clock.host:
            indent = "  of it " if name.startswith("base ") else ""
            lines.append(
                f"{indent + name:30}{1e3 * clock.host[name] / timed:10.2f}{1e3 * of_device.get(name, 0) / timed:11.2f}"
            )
    if device.type == "cuda":
        idle = max(0.0, seconds - busy)
        lines += ["", f"device busy {1e3 * busy:.1f} ms a step, idle {1e3 * idle:.1f} ms ({idle / seconds:.0%})"]
    lines += ["", _mfu(flop, seconds, device, training.config), f"trace: {trace} (open it in ui.perfetto.dev)"]
    return "\n".join(lines)


def _words(config: Config) -> str:
    """What was run, in a few words."""
    run = config.run
    cache = "cached" if config.data.cache else "not cached"
    return f"{config.adapter.family}, {run.precision}, batch {run.batch_size}, {config.data.resolution} px, {cache}"


def _timed(training: Training, steps: int) -> float:
    """Seconds of some steps, each read while the next runs, as in a training."""
    before, began = None, time.perf_counter()
    for _ in range(steps):
        late = training.launch(learning_rate(training.config.optimiser, training.config.run.steps, training.step))
        training.step += 1
        if before is not None:
            before.wait()
        before = late
    assert before is not None
    before.wait()
    return time.perf_counter() - began


def _counted(training: Training) -> int:
    """Floating-point operations of one step, counted while it runs operation by operation."""
    step = training.training_step
    plain = step.engine.run if isinstance(step.engine, Graph) else step.engine
    training.training_step = dataclasses.replace(step, engine=plain)
    with FlopCounterMode(display=False) as counter, training.eager():
        training.launch(0.0).wait()
    training.step += 1
    training.training_step = step
    return int(counter.get_total_flops())


def _busy(found: profile, device: torch.device) -> float:
    """Seconds in which at least one kernel ran."""
    events: Any = found.events()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and event.name not in NAMES  # a part's span is on the device too
    )
    total, reached = 0.0, 0.0
    for began, ended in spans:
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total / 1e6 if device.type == "cuda" else 0.0


def _mfu(flop: int, seconds: float, device: torch.device, config: Config) -> str:
    a_sample = flop / config.samples_per_step / 1e12
    said = f"{a_sample:.4g} TFLOP a sample, forward and backward, as counted: {flop / seconds / 1e12:.3g} TFLOP/s"
    peak = peak_of(_name(device))
    if peak is None or config.run.precision == "fp32":
        return said + "; no MFU, since there is no half-precision peak to hold it to"
    return said + f", MFU {flop / seconds / peak:.1%} of {peak / 1e12:.0f}"


def peak_of(device: str) -> float | None:
    """Half-precision products a second of a device of this name; None where it is not known."""
    return next((value for name, value in PEAKS.items() if name in device), None)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
