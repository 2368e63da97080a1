"""Every kind of base, adapter and option trains for a few steps and gives what it says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ipadapter_core import detect, read_adapter
from tests.support import runs, tiny_models
from trainer.__main__ import main
from trainer.run import checkpoint, loop
from trainer.run import folder as run
from trainer.settings.config import Config

pytestmark = pytest.mark.slow


def train(config: Config) -> Path:
    place = run.start(config)
    assert loop.train(config, place) == config.run.steps
    return place


def with_run(config: Config, **values: Any) -> Config:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **values))


def with_optimiser(config: Config, **values: Any) -> Config:
    return dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, **values))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_base_and_prediction(kind: str, prediction: str, tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"steps": 2})
    base = tiny_models.write_base(tmp_path / kind, kind, prediction)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, base=str(base)))
    place = train(config)
    found = runs.losses(place)
    print(f"\n{kind}, {prediction}: {found}")
    assert found.keys() == {1, 2}
    assert all(loss == loss and loss > 0 for loss in found.values())
    assert detect(read_adapter(checkpoint.latest(place) / checkpoint.ADAPTER).tensors).family == "base"  # type: ignore[operator]


def kept_bytes(config: Config) -> tuple[dict[int, float], int]:
    """A training's losses, and the bytes that its forward passes kept for backward."""
    kept = 0

    def pack(value: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += value.nbytes
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        return runs.losses(train(config)), kept


def test_gradient_checkpointing_keeps_less_and_changes_nothing(tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"steps": 3})
    plain, whole = kept_bytes(config)
    saved, less = kept_bytes(with_run(config, folder=str(tmp_path / "saved"), gradient_checkpointing=True))
    print(f"\nkept for backward: {whole / 2**20:.1f} MiB, with checkpointing {less / 2**20:.1f}")
    assert less < 0.6 * whole
    assert plain.keys() == saved.keys() == {1, 2, 3}
    largest = max(abs(plain[step] - saved[step]) for step in plain)
    print(f"\nlargest difference of a loss {largest:.1e}")
    assert largest <= 1e-6


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_keeps_trained_weights_in_fp32(precision: str, tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"steps": 3})
    exact = runs.losses(train(config))
    low = with_run(config, folder=str(tmp_path / "low"), precision=precision)
    runs.run("train", runs.write_config(low, tmp_path / "low.toml"))  # accelerate keeps a process's first precision
    place = tmp_path / "low"
    largest = max(abs(exact[step] - loss) / exact[step] for step, loss in runs.losses(place).items())
    print(f"\n{precision}: largest relative difference of a loss {largest:.1e}")
    assert largest < 0.05
    assert {value.dtype for value in runs.final_state(place).values()} == {torch.float32}


def test_the_ema_is_what_the_file_holds(tmp_path: Path) -> None:
    config = with_optimiser(
        runs.tiny_config(tmp_path, run={"steps": 4, "save_every_steps": 1, "keep_last": 0}), ema=0.5
    )
    place = train(config)
    average: dict[str, torch.Tensor] = {}
    for step in range(1, 5):
        path = checkpoint.folder(place) / checkpoint.name(step)
        saved, decay = checkpoint.read(path), min(0.5, (1 + step) / (10 + step))
        if average:
            average = {key: value + (saved.weights[key] - value) * (1 - decay) for key, value in average.items()}
            largest = max(float((average[key] - value).abs().max()) for key, value in saved.ema.items())
            assert largest <= 1e-6
        average = saved.ema
        in_file = read_adapter(path / checkpoint.ADAPTER).tensors
        assert all(torch.equal(in_file[key], value) for key, value in saved.ema.items())
        assert not all(torch.equal(in_file[key], value) for key, value in saved.weights.items())


def test_checkpoints_that_are_kept(tmp_path: Path) -> None:
    changes = {"steps": 7, "save_every_steps": 1, "keep_last": 2, "keep_every_steps": 3}
    assert checkpoint.steps_of(train(runs.tiny_config(tmp_path, run=changes))) == [3, 6, 7]


def test_starting_from_an_adapter_file(tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"steps": 2})
    first = checkpoint.latest(train(config))
    assert first is not None
    again = dataclasses.replace(
        config, adapter=dataclasses.replace(config.adapter, start_from=str(first / checkpoint.ADAPTER))
    )
    still = with_optimiser(with_run(again, folder=str(tmp_path / "again"), steps=1), learning_rate=0.0)
    newest = checkpoint.latest(train(still))
    assert newest is not None
    before, after = checkpoint.read(first).weights, checkpoint.read(newest).weights
    assert before.keys() == after.keys()
    assert before
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_seeing_that_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Log, TensorBoard, held-out loss, grid; then pictures and an export of the run."""
    changes = {
        "steps": 4, "validate_every_steps": 2, "sample_every_steps": 4, "sample_steps": 2, "sample_pictures": 2,
        "trackers": ["tensorboard"],
    }  # fmt: skip
    place = train(runs.tiny_config(tmp_path, run=changes, data={"held_out": 3}))
    lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    held_out = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    assert len(held_out) == 2
    names = {"loss", "loss/plain", "gradient_norm", "samples_per_second", "data_wait", "learning_rate"}
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4]
    assert all(names <= line.keys() for line in trained)
    assert list((place / "tensorboard").glob("events*"))
    with Image.open(place / "samples" / "step-00000004.png") as sheet:
        assert sheet.size == (64 * 4, 14 + 64 * 2)  # reference, image only, one prompt at two weights; two rows

    picture = tmp_path / "data" / "0.png"
    out = tmp_path / "sampled.png"
    arguments = ["sample", str(place), "--image", str(picture), "--out", str(out), "--steps", "2", "--number", "2"]
    assert main(arguments) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (64 * 3, 64)
    assert main(["export", str(place), str(tmp_path / "half.safetensors"), "--half"]) == 0
    assert main(["export", str(place), str(tmp_path / "pickle.bin")]) == 0
    half, pickled = read_adapter(tmp_path / "half.safetensors"), read_adapter(tmp_path / "pickle.bin")
    assert all(value.dtype == torch.float16 for value in half.tensors.values())
    assert all(torch.equal(value.half(), half.tensors[key]) for key, value in pickled.tensors.items())
    assert half.metadata["step"] == "4"
    print(capsys.readouterr().out)
    assert main(["export", str(place), str(tmp_path / "nowhere" / "adapter.safetensors")]) == 1
    message = capsys.readouterr().err.strip()
    print(message)
    assert message.endswith("cannot be written (No such file or directory): give another OUT")
