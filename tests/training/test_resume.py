"""A run that is killed and goes on ends as one that was left alone, on any number of processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.support import runs
from tests.support.kill import kill_test
from tests.support.kill_report import Kill, report

pytestmark = pytest.mark.slow

# Of the forty of `make kill-test`, and of ZeRO: each moment of a training, each signal, and who gets it.
KILLS = {
    "one process": [
        Kill("SIGTERM", "process group", "validation"),
        Kill("SIGKILL", "every process", "save"),
        Kill("SIGINT", "main process", "grid"),
    ],
    "two processes, ZeRO-2": [
        Kill("SIGINT", "launcher", "train"),
        Kill("SIGTERM", "last rank", "save"),
        Kill("SIGKILL", "launcher", "train"),
    ],
}


@pytest.mark.parametrize("mode", KILLS)
def test_stopped_and_killed_runs_end_bit_equal(mode: str, tmp_path: Path) -> None:
    outcome = kill_test(tmp_path, mode, KILLS[mode])
    print("\n" + report({mode: outcome}))
    assert outcome.is_good and outcome.tensors, [one.faults for one in outcome.done]


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
