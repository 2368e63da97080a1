"""What shows a training never ends it: a fault of the grid, its references or a log line is said, and tried again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support import runs
from trainer.__main__ import main
from trainer.commands.cache import build_cache
from trainer.run import folder, loop
from trainer.run.log import Log
from trainer.settings.config import Config

pytestmark = pytest.mark.slow


def config(place: Path, **data: object) -> Config:
    grid = {"sample_every_steps": 1, "sample_steps": 1, "sample_pictures": 1, "sample_prompts": []}
    return runs.tiny_config(place, data=data, run={"steps": 2, "batch_size": 2} | grid)


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    found = [record.getMessage() for record in caplog.records if words in record.getMessage()]
    print("\n" + "\n".join(found))
    return found


def test_a_grid_that_cannot_be_written_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config(tmp_path)
    place = folder.start(settings)
    (place / "samples").touch()  # where its folder should be
    assert loop.train(settings, place) == 2
    assert len(said(caplog, "the training goes on, and it is tried again")) == 2
    (place / "samples").unlink()
    assert main(["resume", str(place), "--set", "run.steps=3"]) == 0
    assert (place / "samples" / "step-00000003.png").exists()


def test_pictures_that_are_gone_after_caching(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config(tmp_path, cache=str(tmp_path / "cache"))
    build_cache(settings)
    kept = {path: path.read_bytes() for path in (tmp_path / "data").glob("*.png")}
    for path in kept:
        path.unlink()
    assert loop.train(settings, folder.start(settings)) == 2
    assert said(caplog, "no reference for the grid can be read")
    assert len(said(caplog, "there is no reference that can be read")) == 2


def test_a_scorer_that_is_not_there_is_known_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.write_config(config(tmp_path), tmp_path / "config.toml")
    assert main(["train", str(path), "--set", "run.score_encoder=ViT-L-14/opena"]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    print(f"\n{message}")
    assert "open_clip has no weights 'opena' for ViT-L-14" in message
    assert runs.losses(tmp_path / "run") == {}


def test_lines_wait_for_room_on_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config(tmp_path)
    settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, trackers=("tensorboard",)))
    (tmp_path / "tensorboard").touch()  # where its folder should be
    log = Log(tmp_path, settings, 0)
    with Path("/dev/full").open("ab", buffering=0) as full:
        mine, log.file = log.file, full
        log.numbers(1, {"loss": 1.0})
        log.numbers(2, {"loss": 0.5})
    assert len(said(caplog, "No space left on device")) == 2
    assert len(said(caplog, "TensorBoard failed")) == 2
    log.file = mine
    (tmp_path / "tensorboard").unlink()
    log.numbers(3, {"loss": 0.25})
    log.picture(3, "samples", Image.new("RGB", (8, 8)))
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [3] and events.Tags()["images"] == ["samples"]
