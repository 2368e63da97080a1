"""Every fault of the input is one sentence on stderr and exit code 1, and nothing is lost or half-written."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from ipadapter_core import write_safetensors
from tests.support import needs, runs, tiny_models
from tests.support.limits import without_root
from trainer.__main__ import main
from trainer.run import checkpoint, loop
from trainer.run import folder as run
from trainer.settings.config import Config, fixed_values, tables
from trainer.settings.load import load_config, parse_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, an encoder, data, and a config that trains."""
    place = tmp_path_factory.mktemp("bad")
    runs.write_config(runs.tiny_config(place, run={"steps": 2, "save_every_steps": 1}), place / "good.toml")
    return place


def refused(folder: Path, *arguments: str, command: str = "train", capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which a command on the good config with changes is refused, in this process."""
    target = folder / f"run-{len(list(folder.iterdir()))}"
    assert main([command, str(folder / "good.toml"), "--set", f"run.folder={target}", *arguments]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    print(f"\n{message}")
    assert message.startswith("error: ")
    assert not checkpoint.steps_of(target)
    return message


def test_wrong_key_names_the_nearest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(folder, "--set", "optimiser.lerning_rate=1e-3", capsys=capsys)
    assert "did you mean optimiser.learning_rate?" in message


def test_no_such_base(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no base nowhere" in refused(folder, "--set", "model.base=nowhere", capsys=capsys)


def test_base_without_cross_attention(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny_models.write_base(folder / "unconditional")
    UNet2DModel(
        sample_size=8, block_out_channels=(32, 64), norm_num_groups=8, layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    ).save_pretrained(base / "unet")  # fmt: skip
    assert "has no cross-attention" in refused(folder, "--set", f"model.base={base}", capsys=capsys)


def test_no_such_encoder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no image encoder 'ViT-Z'" in refused(folder, "--set", "model.encoder=ViT-Z", capsys=capsys)


def test_encoder_of_the_wrong_width(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(folder / "good.toml")
    started = run.start(_with_folder(config, folder / "narrow"))
    loop.train(_with_folder(config, started), started)
    adapter = checkpoint.latest(started) / checkpoint.ADAPTER  # type: ignore[operator]
    wide = tiny_models.write_encoder(folder / "wide", embed_dim=40)
    changes = ["--set", f"adapter.start_from={adapter}", "--set", f"model.encoder={wide}"]
    message = refused(folder, *changes, capsys=capsys)
    assert "image feature width 24, this training 40" in message


def test_start_from_what_is_no_adapter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_safetensors(folder / "lora.safetensors", {"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}, {})
    assert "this file is a LoRA" in refused(
        folder, "--set", f"adapter.start_from={folder / 'lora.safetensors'}", capsys=capsys
    )


def test_missing_picture_and_broken_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = folder / "broken.jsonl"
    lines.write_text('{"image_file": "data/0.png", "text": "a"}\n{"image_file": \n')
    assert "line 2" in refused(folder, "--set", f"data.source={lines}", capsys=capsys)
    (folder / "gone.json").write_text(json.dumps([{"image_file": "gone.png", "text": "a"}]))
    assert "gone.png" in refused(folder, "--set", f"data.source={folder / 'gone.json'}", capsys=capsys)


def test_checkpoint_of_another_config(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _with_folder(load_config(folder / "good.toml"), folder / "mine")
    loop.train(config, run.start(config))
    before = (folder / "mine" / "config.toml").read_bytes()
    assert main(["resume", str(folder / "mine"), "--set", "optimiser.weight_decay=0.5", "--set", "run.steps=4"]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    print(f"\n{message}")
    assert "belongs to another training: its optimiser.weight_decay is 0.01, the config's 0.5" in message
    assert (folder / "mine" / "config.toml").read_bytes() == before
    assert main(["train", str(folder / "good.toml"), "--set", f"run.folder={folder / 'mine'}"]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_run_that_is_being_trained(folder: Path) -> None:
    config = _with_folder(load_config(folder / "good.toml"), folder / "busy")
    place = run.start(config)
    with run.locked(place), pytest.raises(ValueError, match="another process is training in"):
        loop.train(config, place)


def test_loss_that_is_not_finite_names_the_sample(folder: Path) -> None:
    config = _with_folder(
        load_config(folder / "good.toml", ["optimiser.learning_rate=1e25", "run.steps=6"]), folder / "nan"
    )
    with pytest.raises(ValueError, match=r"the loss of step \d is not finite for .*\.png") as found:
        loop.train(config, run.start(config))
    print(f"\n{found.value}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True
        ).returncode
    ):
        needs.missing("the right to mount a small tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk_keeps_the_last_good_checkpoint(folder: Path, small_disk: Path) -> None:
    changes = ["run.steps=20", "run.keep_last=0"]
    config = _with_folder(load_config(folder / "good.toml", changes), small_disk / "run")
    with pytest.raises(ValueError, match=r"No space left on device.*the last good checkpoint is step-") as found:
        loop.train(config, run.start(config))
    print(f"\n{found.value}")
    newest = checkpoint.latest(small_disk / "run")
    assert newest is not None
    assert checkpoint.read(newest, fixed_values(config)).step == int(newest.name.removeprefix("step-"))
    assert not list(checkpoint.folder(small_disk / "run").glob(".step-*"))


def test_full_disk_at_the_start(folder: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small_disk / "run").mkdir()
    with contextlib.suppress(OSError), (small_disk / "full").open("wb") as file:
        file.write(bytes(2**20))
    settings = [f"run.folder={small_disk / 'run'}", 'run.trackers=["tensorboard"]']
    assert main(["train", str(folder / "good.toml"), *(part for one in settings for part in ("--set", one))]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    print(f"\n{message}")
    assert message.startswith("error: ") and "No space left on device" in message
    assert not checkpoint.steps_of(small_disk / "run")


def test_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = _with_folder(load_config(folder / "good.toml"), tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="cannot be written") as found:
        run.start(config)
    print(f"\n{found.value}")


def test_folder_that_is_closed(folder: Path) -> None:
    config = load_config(folder / "good.toml")
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        place = Path(name)
        place.chmod(0o555)
        with without_root(), pytest.raises(ValueError, match="cannot be written"):
            run.start(_with_folder(config, place / "run"))
        assert list(place.iterdir()) == []


def _with_folder(config: Config, place: Path) -> Config:
    return parse_config(tables(config) | {"run": tables(config)["run"] | {"folder": str(place)}})


def test_every_command_shows_an_example() -> None:
    for name in ("train", "resume", "export", "sample", "check", "faces", "cache", "plan"):
        found = subprocess.run(
            [sys.executable, "-m", "trainer", name, "--help"],
            capture_output=True,
            text=True,
            env=runs.environment(),
            cwd=runs.ROOT,
        )
        assert found.returncode == 0, found.stderr
        assert f"example: python -m trainer {name}" in " ".join(found.stdout.split())
