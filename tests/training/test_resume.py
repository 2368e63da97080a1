"""A run that is killed and goes on ends as one that was left alone, on any number of processes."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest
import torch

from tests.support import runs
from tests.support.kill import MODES, kill_test, report
from trainer.run import checkpoint

pytestmark = pytest.mark.slow

KILLS = 3


@pytest.mark.parametrize("mode", MODES)
def test_killed_runs_end_bit_equal(mode: str, tmp_path: Path) -> None:
    outcome = kill_test(tmp_path, mode, KILLS)
    print("\n" + report(mode, outcome))
    assert outcome.is_equal


def test_resume_with_another_number_of_processes(tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"steps": 8, "save_every_steps": 4})
    runs.run("train", runs.write_config(config, tmp_path / "one.toml"))
    whole = runs.losses(tmp_path / "run")

    two = dataclasses.replace(
        config.run, folder=str(tmp_path / "two"), processes=2, batch_size=2, parallel="zero2", steps=4
    )
    runs.run("train", runs.write_config(dataclasses.replace(config, run=two), tmp_path / "two.toml"))
    output = runs.run("resume", tmp_path / "two", "--processes", "1", "--set", "run.steps=8")
    assert "done: 8 steps" in output
    changed = runs.losses(tmp_path / "two")
    largest = max(abs(whole[step] - changed[step]) / whole[step] for step in whole)
    print(f"\nfour steps on two processes, four on one: largest difference of a loss {largest:.2e}")
    assert changed.keys() == whole.keys()
    assert largest <= 1e-5


@pytest.mark.parametrize("processes", [1, 2])
def test_interrupt_saves_and_stops(processes: int, tmp_path: Path) -> None:
    changes = {"steps": 100_000, "save_every_steps": 100_000, "batch_size": 4 // processes, "processes": processes}
    config = runs.tiny_config(tmp_path, run=changes | {"parallel": "none" if processes == 1 else "ddp"})
    process = runs.spawn(["train", runs.write_config(config, tmp_path / "config.toml")])
    while not (tmp_path / "run" / "log.jsonl").exists() or len(runs.losses(tmp_path / "run")) < 3:
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    newest = checkpoint.latest(tmp_path / "run")
    assert process.returncode == 0, output
    assert newest is not None, output
    assert "stopped and saved at step" in output
    saved = checkpoint.read(newest)
    assert saved.step == max(runs.losses(tmp_path / "run"))
    assert saved.weights
    assert all(torch.isfinite(value).all() for value in saved.weights.values())
