"""However a run is asked to stop it saves and says so; however it ends, its lock and its workers end with it.

The other ways, and SIGINT, are in the kill test: `test_resume.py`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support import runs
from trainer.run import checkpoint
from trainer.run import folder as run

pytestmark = pytest.mark.slow

LONG = {"steps": 100_000, "save_every_steps": 100_000}


def config(folder: Path, processes: int, name: str = "run") -> Path:
    parts = {"processes": processes, "batch_size": 4 // processes, "parallel": "none" if processes == 1 else "ddp"}
    made = runs.tiny_config(folder, data={"workers": 1}, run=LONG | parts | {"folder": str(folder / name)})
    return runs.write_config(made, folder / f"{name}.toml")


def test_sigterm_to_all_at_once_saves_and_says_so(tmp_path: Path) -> None:
    process = runs.spawn(["train", config(tmp_path, 2)], has_group=True)
    runs.wait_for_steps(process, tmp_path / "run")
    family = runs.family(process)
    runs.send(process, signal.SIGTERM, "every process")
    output, _ = process.communicate(timeout=120)
    newest = checkpoint.latest(tmp_path / "run")
    print("\n" + output.splitlines()[-1])
    assert "stopped and saved at step" in output and "Traceback" not in output, output
    assert process.returncode == 0 and newest is not None
    assert checkpoint.read(newest).step == max(runs.losses(tmp_path / "run"))
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_a_stop_before_anything_can_be_saved_is_no_success(tmp_path: Path) -> None:
    process = runs.spawn(["train", config(tmp_path, 2)])
    while runs.ranks(process)[0].pid == process.pid:  # none has been started yet
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    print("\n" + output.splitlines()[-1])
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "stopped by SIGTERM before anything could be saved; nothing is saved yet" in output


# A launcher that is asked to stop when both processes run, and torch does not yet know that they do.
STOPPED_AS_IT_STARTS = """
import os, runpy, signal, sys
from torch.distributed.elastic.multiprocessing import api
if "RANK" not in os.environ:
    start = api.get_subprocess_handler
    def started(**given):
        found = start(**given)
        if given["local_rank_id"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return found
    api.get_subprocess_handler = started
runpy.run_module("trainer", run_name="__main__", alter_sys=True)
"""


def test_processes_end_with_a_launcher_that_was_stopped_as_it_started_them(tmp_path: Path) -> None:
    process = runs.spawn(["train", config(tmp_path, 2)], program=("-c", STOPPED_AS_IT_STARTS))
    output, _ = process.communicate(timeout=120)  # ends when all have closed their output
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.count("stopped by SIGTERM before anything could be saved") == 1 and "Traceback" not in output


def test_the_lock_comes_first_and_ends_with_the_process(tmp_path: Path) -> None:
    process = runs.spawn(["train", config(tmp_path, 1)])
    runs.wait_for_steps(process, tmp_path / "run")
    before = (tmp_path / "run" / "config.toml").read_bytes()
    output = runs.run("train", tmp_path / "run.toml", "--set", "data.resolution=128", fails=True)
    assert "another process is training" in output
    assert (tmp_path / "run" / "config.toml").read_bytes() == before
    workers = psutil.Process(process.pid).children()
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with run.locked(tmp_path / "run"):
        print(f"\nfree {time.monotonic() - began:.3f} s after kill -9")
    assert psutil.wait_procs(workers, timeout=2)[1] == []


def test_a_fault_of_any_rank_is_said_with_its_number_and_all_save(tmp_path: Path) -> None:
    process = runs.spawn(["train", config(tmp_path, 2)])
    runs.wait_for_steps(process, tmp_path / "run")
    loader = runs.ranks(process)[1].children()[0]
    loader.kill()
    output, _ = process.communicate(timeout=120)
    lines, step = output.splitlines(), max(runs.losses(tmp_path / "run"))
    print("\n" + "\n".join(line for line in lines if "error: " in line))
    assert process.returncode == 1 and "Traceback" not in output, output
    said = [line for line in lines if line.startswith("error: process ")]
    assert len(said) == 1 and said[0].startswith("error: process 1: a loader process has ended"), output
    assert said[0].endswith(f"; saved at step {step}")
    assert lines[-1].startswith("error: the training has stopped: process 1 has failed (a loader process has ended")
    assert lines[-1].endswith(
        f"saved is {checkpoint.name(step)}; go on with: python -m trainer resume {tmp_path / 'run'}"
    )
    assert checkpoint.steps_of(tmp_path / "run") == [step]


def test_a_fault_of_one_process_saves_before_it_ends(tmp_path: Path) -> None:
    process = runs.spawn(["train", config(tmp_path, 1)])
    runs.wait_for_steps(process, tmp_path / "run")
    psutil.Process(process.pid).children()[0].kill()
    output, _ = process.communicate(timeout=120)
    print("\n" + output.splitlines()[-1])
    assert process.returncode == 1 and "Traceback" not in output
    step = max(runs.losses(tmp_path / "run"))
    assert output.splitlines()[-1].endswith(f"; saved at step {step}")
    newest = checkpoint.latest(tmp_path / "run")
    assert newest is not None and checkpoint.read(newest).step == step
