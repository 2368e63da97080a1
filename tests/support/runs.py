"""Runs of the real command line on a tiny base: their data, config and processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.support import tiny_models
from trainer.base.frozen import Frozen
from trainer.base.processor import AdapterOutput
from trainer.data.workers import ASKED
from trainer.run import checkpoint
from trainer.settings.config import Config
from trainer.settings.load import parse_config, save_config

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("-m", "trainer")


def write_data(folder: Path, number: int = 12, side: int = 80) -> Path:
    """A JSON list of noise pictures with captions, as the reference's trainer reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rows = []
    for place in range(number):
        values = random.integers(0, 255, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(values).resize((side + 8 * (place % 3), side), Image.Resampling.BICUBIC).save(
            folder / f"{place}.png"
        )
        rows.append({"image_file": f"{place}.png", "text": f"picture number {place}"})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def tiny_config(folder: Path, **sections: dict[str, Any]) -> Config:
    """A config of a small run in `folder`/run, on a base, an encoder and data that are written once."""
    base, encoder = folder / "base", folder / "encoder"
    if not base.exists():
        tiny_models.write_base(base)
        tiny_models.write_encoder(encoder)
        write_data(folder / "data")
    tables: dict[str, dict[str, Any]] = {
        "model": {"base": str(base), "encoder": str(encoder)},
        "data": {"source": str(folder / "data" / "data.json"), "resolution": 64, "workers": 0, "min_side": 16},
        "optimiser": {"learning_rate": 1e-2},
        "run": {
            "folder": str(folder / "run"), "steps": 8, "batch_size": 4, "device": "cpu", "save_every_steps": 4,
            "log_every_steps": 1, "validate_every_steps": 0, "sample_every_steps": 0, "trackers": [],
        },
    }  # fmt: skip
    for section, values in sections.items():
        tables[section] = tables.get(section, {}) | values
    return parse_config(tables)


def write_config(config: Config, path: Path) -> Path:
    save_config(config, path)
    return path


def environment(threads: int = 1) -> dict[str, str]:
    """The environment of a training process: one thread, so that sums have one order."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"OMP_NUM_THREADS": str(threads), "DS_ACCELERATOR": "cpu", "PYTHONPATH": path}


def spawn(
    arguments: Iterable[str | Path], program: Sequence[str] = PROGRAM, has_group: bool = False
) -> subprocess.Popen[str]:
    """Start `python -m trainer ARGUMENTS`, in a process group of its own if asked."""
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=has_group, preexec_fn=_hear,
    )  # fmt: skip


def _hear() -> None:
    """Take signals as from a terminal: what a script starts in its background ignores Ctrl-C, as all that it starts."""
    for name in ASKED:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def run(*arguments: str | Path, fails: bool = False, program: Sequence[str] = PROGRAM) -> str:
    """Run `python -m trainer ARGUMENTS` to its end; its output. Asserts that it succeeds, or fails where it should."""
    process = spawn(arguments, program)
    output, _ = process.communicate(timeout=600)
    assert (process.returncode != 0) == fails, output
    return output


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A process and all that it has started, the youngest first."""
    return [*reversed(psutil.Process(process.pid).children(recursive=True)), psutil.Process(process.pid)]


def kill(members: list[psutil.Process]) -> None:
    """kill -9 of all of them at one moment."""
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    psutil.wait_procs(members)


def ranks(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train, by their rank: those of a launcher, or the one itself."""
    by_rank = {}
    for one in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):  # one that has just been forked, or has ended
            if "trainer" in one.cmdline() and "RANK" in (its := one.environ()):
                by_rank[int(its["RANK"])] = one
    return [by_rank[rank] for rank in sorted(by_rank)] or [psutil.Process(process.pid)]


def send(process: subprocess.Popen[str], number: int, target: str) -> None:
    """A signal to one of TARGETS."""
    if target == "process group":
        os.killpg(process.pid, number)
        return
    if target == "every process":
        to = family(process)
    elif target in ("first rank", "last rank"):
        to = [ranks(process)[0 if target == "first rank" else -1]]
    else:
        to = [psutil.Process(process.pid)]
    for member in to:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(number)


# How a cluster, a service or a person sends a signal: `timeout`, systemd and Ctrl-C to a group, Slurm to each process.
TARGETS = ("launcher", "main process", "process group", "every process", "first rank", "last rank")


def wait_for_steps(process: subprocess.Popen[str], place: Path, steps: int = 3) -> None:
    """Wait until a run has logged so many steps. Asserts that it lives."""
    while not (place / "log.jsonl").exists() or len(losses(place)) < steps:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def losses(folder: Path, name: str = "loss") -> dict[int, float]:
    """The loss of each logged step, or another of the log's numbers."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def predict(
    frozen: Frozen, config: Config, x: Tensor, time: Tensor, text: Tensor, keys_values: Any, lora: Any = None
) -> Tensor:
    """The prediction of a base without size conditioning, with an adapter's K', V' and LoRA, as a training makes it."""
    frozen.base.install(config.adapter.attention, bool(lora), config.run.gradient_checkpointing)
    return frozen.base.denoise(x, time, {"states": text}, AdapterOutput(keys_values, lora or {}))


def final_state(folder: Path) -> dict[str, Tensor]:
    """Weights, optimiser state and EMA of a run's newest checkpoint."""
    newest = checkpoint.latest(folder)
    assert newest is not None
    return load_file(newest / checkpoint.STATE)
