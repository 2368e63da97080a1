"""Going on with a run: past a damaged checkpoint, from an older one, elsewhere, with changed data or another rate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support import runs
from trainer.__main__ import main
from trainer.data.sources import open_source
from trainer.run import best, checkpoint, folder, loop
from trainer.run.same import made_with
from trainer.settings.load import load_config

pytestmark = pytest.mark.slow

STEPS = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base, encoder, data and a run of six steps, saved at each second."""
    place = tmp_path_factory.mktemp("made")
    changes = {"steps": STEPS, "save_every_steps": 2, "keep_last": 0, "batch_size": 2}
    config = runs.tiny_config(place, run=changes, optimiser={"ema": 0.9})
    loop.train(config, folder.start(config))
    return place


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, that may be changed."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def resume(run: Path, *arguments: str, fails: bool = False) -> None:
    changes = [part for one in arguments for part in (("--set", one) if "=" in one else (one,))]
    assert main(["resume", str(run), *changes]) == int(fails)


def state(run: Path, step: int = STEPS) -> dict[str, Tensor]:
    return load_file(checkpoint.folder(run) / checkpoint.name(step) / checkpoint.STATE)


def holds_the_same(run: Path, made: Path) -> None:
    one, other = state(run), state(made / "run")
    largest = max(float((one[key] - other[key]).abs().max()) for key in other)
    print(f"\nlargest difference from the run that was left alone {largest:g}")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in other)


def cut(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes((place / name).read_bytes()[:-100])


def overwrite(place: Path) -> None:
    with (place / checkpoint.STATE).open("r+b") as file:
        file.seek(-2000, 2)
        file.write(b"\x7f" * 2000)


def other_step(place: Path) -> None:
    settings = place / checkpoint.SETTINGS
    settings.write_text(settings.read_text().replace('"step": 6', '"step": 5'))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "state cut off": cut(checkpoint.STATE),
    "adapter cut off": cut(checkpoint.ADAPTER),
    "settings empty": lambda place: (place / checkpoint.SETTINGS).write_text(""),
    "settings changed": other_step,
    "bytes overwritten": overwrite,
    "state gone": lambda place: (place / checkpoint.STATE).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_kept(
    damage: str, run: Path, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = checkpoint.latest(run)
    assert newest is not None
    DAMAGES[damage](newest)
    with caplog.at_level("INFO"):
        resume(run)
    said = [record.getMessage() for record in caplog.records]
    print("\n" + "\n".join(line for line in said if "damaged" in line or "going on" in line))
    assert any("step-00000006 is incomplete or damaged" in line and "passed over" in line for line in said)
    assert "going on from step 4" in said
    assert (checkpoint.folder(run) / "aside-step-00000006").is_dir()
    holds_the_same(run, made)


def test_where_all_are_damaged_nothing_is_moved(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in checkpoint.steps_of(run):
        overwrite(checkpoint.folder(run) / checkpoint.name(step))
    resume(run, fails=True)
    assert f"all checkpoints of {run} are damaged (3)" in capsys.readouterr().err
    assert len(checkpoint.steps_of(run)) == 3
    assert main(["export", str(checkpoint.latest(run)), str(run / "out.safetensors")]) == 1
    assert "is incomplete or damaged" in capsys.readouterr().err


def test_from_an_older_checkpoint(run: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume(run, "--from", "3", fails=True)
    assert "has no checkpoint of step 3: --from takes one of 2, 4, 6" in capsys.readouterr().err
    overwrite(checkpoint.folder(run) / checkpoint.name(6))
    resume(run, "--from", "2")
    aside = sorted(path.name for path in checkpoint.folder(run).glob("aside-*"))
    assert aside == ["aside-step-00000004", "aside-step-00000006"]
    holds_the_same(run, made)
    assert main(["export", str(run), str(run / "out.safetensors")]) == 0


def test_moved_base_encoder_and_data(run: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("base", "encoder", "data"):
        shutil.copytree(made / name, tmp_path / f"moved_{name}")
    places = [
        f"model.base={tmp_path}/moved_base", f"model.encoder={tmp_path}/moved_encoder",
        f"data.source={tmp_path}/moved_data/data.json",
    ]  # fmt: skip
    resume(run, "--from", "4", *places)
    holds_the_same(run, made)
    config = load_config(run / "config.toml")
    assert config.model.base == f"{tmp_path}/moved_base"  # and a later resume knows
    unet = tmp_path / "moved_base" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value + 1 for key, value in load_file(unet).items()}, unet, {"format": "pt"})
    resume(run, "run.steps=8", fails=True)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    print(f"\n{message}")
    assert "belongs to another training: its model.base had other files than" in message


def test_changed_data_needs_a_word(run: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(made / "data", tmp_path / "data")) / "data.json"
    rows = json.loads(data.read_text())
    place = f"data.source={data}"
    for rows_now, words in (
        (rows[:9], "it had 12 samples and has 9"),
        ([rows[0] | {"text": "another"}, *rows[1:]], "12 samples as before, but other names, sizes or captions"),
    ):
        data.write_text(json.dumps(rows_now))
        resume(run, place, "run.steps=8", fails=True)
        message = capsys.readouterr().err.strip().splitlines()[-1]
        print(f"\n{message}")
        assert words in message and "--changed-data" in message
    assert load_config(run / "config.toml").data.source == str(made / "data" / "data.json")
    resume(run, place, "run.steps=8", "--changed-data")
    last = json.loads((run / "record.jsonl").read_text().splitlines()[-1])
    assert last["step"] == STEPS and list(last["changed"]) == ["data.source"]
    saved = checkpoint.settings_of(checkpoint.folder(run) / checkpoint.name(8))["made with"]
    config = load_config(run / "config.toml")
    assert saved == made_with(config, open_source(config.data))


def test_another_rate_from_here_on_is_recorded_and_remembered(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("learning_rate=0.005", "schedule=linear", "warmup_steps=7", "clip=1.0")
    resume(run, "run.steps=8", *(f"optimiser.{change}" for change in changes))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line}
    assert rates[STEPS] == 0.01 and rates[7] == pytest.approx(0.005) and rates[8] == pytest.approx(0.005)
    starts = [json.loads(line) for line in (run / "record.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, STEPS]
    assert starts[1]["changed"]["optimiser.learning_rate"] == [0.01, 0.005]
    assert set(starts[1]["changed"]) == {f"optimiser.{change.partition('=')[0]}" for change in changes}
    resume(run)
    assert "done: 8 steps" in capsys.readouterr().out.splitlines()[-1]
    resume(run, "optimiser.weight_decay=0.5", fails=True)
    assert "belongs to another training: its optimiser.weight_decay" in capsys.readouterr().err


def test_checkpoints_from_before_the_checksums_are_read(run: Path, made: Path) -> None:
    for step in checkpoint.steps_of(run):
        path = checkpoint.folder(run) / checkpoint.name(step) / checkpoint.SETTINGS
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({key: settings[key] for key in ("step", "config", "fixed", "scale")}))
    resume(run, "--from", "4")
    holds_the_same(run, made)


def test_sample_sees_a_turned_photo_upright_and_checks_before_it_works(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sample(image: Path, out: Path, *more: str) -> int:
        few = ("--steps", "1", "--number", "1", "--resolution", "32", "--device", "cpu")
        return main(["sample", str(run), "--image", str(image), "--out", str(out), *few, *more])

    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    photo.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "phone.png", exif=exif)
    seen = []
    for name in ("upright", "phone"):
        assert sample(tmp_path / f"{name}.png", tmp_path / "new" / f"{name}.png") == 0
        seen.append(np.asarray(Image.open(tmp_path / "new" / f"{name}.png")).astype(int))
    print(f"\nupright and turned by EXIF: largest difference {abs(seen[0] - seen[1]).max()} of 255")
    assert (seen[0] == seen[1]).all()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    for image, out, words in (
        ("upright.png", "o.xyz", "o.xyz has no ending of a picture"),
        ("huge.png", "o.png", "cannot be a reference (more than 178,956,970 pixels)"),
        ("gone.png", "o.png", "there is no file"),
    ):
        assert sample(tmp_path / image, tmp_path / out) == 1
        message = capsys.readouterr().err.strip().splitlines()[-1]
        print(f"\n{message}")
        assert words in message


def test_what_a_stop_or_a_kill_left_out_is_made_at_the_resume(tmp_path: Path) -> None:
    due = {"steps": 2, "validate_every_steps": 2, "sample_every_steps": 2, "sample_steps": 1, "sample_pictures": 1}
    config = runs.tiny_config(tmp_path, run=due | {"batch_size": 2, "keep_best": True}, data={"held_out": 4})
    loop.train(config, folder.start(config))
    run, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    files = [run / "samples" / "step-00000002.png", checkpoint.folder(run) / "step-00000002" / best.HELD_OUT]
    wanted, lines = [file.read_bytes() for file in files], log.read_text().splitlines(keepends=True)
    losses = runs.losses(run, "held_out_loss")
    log.write_text("".join(line for line in lines if "held_out_loss" not in line))
    for file in files:
        file.unlink()
    resume(run)
    assert [file.read_bytes() for file in files] == wanted and runs.losses(run, "held_out_loss") == losses
    resume(run)
    assert len(log.read_text().splitlines()) == len(lines)
