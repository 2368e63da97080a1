"""The same training on one process, in accumulated batches, and on two processes under DDP and ZeRO."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import runs
from trainer.settings.config import Config

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5


def losses_of(
    folder: Path, name: str, config: Config, program: Sequence[str] = runs.PROGRAM, **run: Any
) -> tuple[dict[int, float], str]:
    """Losses and output of a run of `config` with other values of [run]."""
    accumulation = run.pop("accumulation", 1)
    changed = dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, folder=str(folder / name), **run),
        optimiser=dataclasses.replace(config.optimiser, accumulation=accumulation),
    )
    output = runs.run("train", runs.write_config(changed, folder / f"{name}.toml"), program=program)
    return runs.losses(folder / name), output


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, dict[int, float], int]:
    """Folder, config, losses and bytes of optimiser state of one process."""
    folder = tmp_path_factory.mktemp("alone")
    config = runs.tiny_config(folder, run={"steps": 6}, optimiser={"clip": 0.1})
    found, output = losses_of(folder, "one", config)
    return folder, config, found, state_bytes(output)[0]


def state_bytes(output: str) -> list[int]:
    match = re.search(r"optimiser state: (.*) bytes on processes", output)
    assert match, output
    return [int(size.replace(",", "")) for size in match[1].split(", ")]


WAYS: dict[str, dict[str, Any]] = {
    "accumulated": {"batch_size": 2, "accumulation": 2},
    "ddp": {"processes": 2, "batch_size": 2, "parallel": "ddp"},
    "zero2": {"processes": 2, "batch_size": 1, "accumulation": 2, "parallel": "zero2"},
    "zero3": {"processes": 2, "batch_size": 2, "parallel": "zero3"},
    "zero2, offloaded": {"processes": 2, "batch_size": 2, "parallel": "zero2", "offload_optimiser": True},
}


@pytest.mark.parametrize(("name", "settings"), WAYS.items())
def test_losses_equal_one_process(
    name: str, settings: dict[str, Any], alone: tuple[Path, Config, dict[int, float], int]
) -> None:
    folder, config, wanted, whole = alone
    found, output = losses_of(folder, name, config, **settings)
    largest = max(abs(found[step] - wanted[step]) / wanted[step] for step in wanted)
    sizes = state_bytes(output)
    print(
        f"\n{name}: largest relative difference of a loss {largest:.2e}; "
        f"optimiser state {sizes} bytes, one process {whole}"
    )
    assert found.keys() == wanted.keys()
    assert largest <= TOLERANCE
    is_parted = name.startswith("zero")
    assert all(abs(size - whole / 2) <= 64 if is_parted else size == whole for size in sizes)


@pytest.mark.parametrize("name", ["ddp", "zero2"])
def test_a_graph_beside_other_processes_is_plain_to_the_bit(
    name: str, alone: tuple[Path, Config, dict[int, float], int]
) -> None:
    """The graph's engine on two processes, by the code that CUDA runs: what it hands on is reduced as ever."""
    folder, config, _, _ = alone
    is_there = (folder / name).exists()
    wanted = runs.losses(folder / name) if is_there else losses_of(folder, name, config, **WAYS[name])[0]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    program = (*launcher, str(Path(runs.__file__).with_name("graphed.py")))
    found, output = losses_of(folder, f"{name}, graph", config, program=program, **WAYS[name])
    assert "engine: a graph's buffers" in output
    assert found == wanted


SAYS_WHERE = """
import sys, deepspeed
from trainer.__main__ import main
for one in (deepspeed.utils.logger, *deepspeed.utils.logger.handlers):
    one.setLevel("INFO")
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("is_offloaded", [True, False])
def test_the_optimiser_is_offloaded_where_it_is_asked_for(is_offloaded: bool, tmp_path: Path) -> None:
    """Losses cannot show it: DeepSpeed's own word."""
    run = {"steps": 1, "parallel": "zero2", "offload_optimiser": is_offloaded}
    path = runs.write_config(runs.tiny_config(tmp_path, run=run), tmp_path / "config.toml")
    output = runs.run("train", path, program=("-c", SAYS_WHERE))
    assert f"CPU Offload: {is_offloaded}" in output, output


def test_accelerate_launch_does_the_same(alone: tuple[Path, Config, dict[int, float], int]) -> None:
    folder, config, wanted, _ = alone
    run = dataclasses.replace(config.run, folder=str(folder / "launched"), processes=2, batch_size=2, parallel="ddp")
    path = runs.write_config(dataclasses.replace(config, run=run), folder / "launched.toml")
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
    output = runs.run("train", path, program=(*launcher, "--mixed_precision", "no", "-m", "trainer"))
    found = runs.losses(folder / "launched")
    largest = max(abs(found[step] - wanted[step]) / wanted[step] for step in wanted)
    print(f"\naccelerate launch: largest relative difference of a loss {largest:.2e}")
    assert "done: 6 steps" in output
    assert largest <= TOLERANCE


def test_one_process_runs_where_deepspeed_is_not_installed(tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"steps": 2})
    blocked = (
        "import sys; sys.modules['deepspeed'] = None; from trainer.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    path = runs.write_config(config, tmp_path / "config.toml")
    output = runs.run("train", path, program=("-c", blocked))
    assert "done: 2 steps" in output
    output = runs.run(
        "train",
        path,
        "--set",
        "run.parallel=zero2",
        "--set",
        f"run.folder={tmp_path / 'other'}",
        program=("-c", blocked),
        fails=True,
    )
    assert "needs DeepSpeed, which is not installed" in output
