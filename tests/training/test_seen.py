"""What a run shows of itself: the held-out loss beside its controls, the best checkpoint, the report, short lines."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from ipadapter_core import Given, attention_names, read_adapter
from tests.support import runs
from trainer.__main__ import main
from trainer.base.frozen import Frozen
from trainer.base.processor import AdapterOutput
from trainer.base.sites import unet_layers
from trainer.data.loader import open_loader
from trainer.run import checkpoint, folder, loop
from trainer.run.best import asked_best, best, forget_losses, is_best, note_loss, prune
from trainer.run.progress import Progress, duration
from trainer.run.report import PAGE
from trainer.run.show import show_report
from trainer.run.validation import PATIENCE, Proof, Validation
from trainer.settings.config import RunConfig
from trainer.settings.load import load_config
from trainer.step.adapter import load_adapter
from trainer.step.inputs import to_inputs
from trainer.step.objective import build_objective

STEPS, HELD_OUT = 6, 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, validated at each second and saved where that is the best so far; a grid at the end."""
    place = tmp_path_factory.mktemp("seen")
    run = {
        "steps": STEPS, "save_every_steps": 0, "keep_last": 0, "keep_best": True, "validate_every_steps": 2,
        "sample_every_steps": STEPS, "sample_steps": 1, "sample_pictures": 1, "sample_prompts": [],
    }  # fmt: skip
    config = runs.tiny_config(place, run=run, data={"held_out": HELD_OUT})
    loop.train(config, folder.start(config))
    return place / "run"


def held_out(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "held_out_loss" in line]


@pytest.mark.slow
@torch.no_grad()
def test_the_held_out_losses_and_the_ratio_are_their_formulas(made: Path) -> None:
    config = load_config(made / "config.toml")
    frozen = Frozen(config.model, torch.device("cpu"), torch.float32)
    objective = build_objective(frozen.base.scheduler_config(), config.optimiser)
    newest: Any = checkpoint.latest(made)
    adapter = load_adapter(read_adapter(newest / checkpoint.ADAPTER).tensors, frozen.base.sites)
    frozen.base.install("decoupled", False)
    unet: Any = frozen.base.unet  # type: ignore[attr-defined]
    names = attention_names(unet_layers(unet), "diffusers")
    seen: dict[str, Tensor] = {}
    for name in names.values():
        for part in ("to_q", "to_k", "to_v"):
            unet.get_submodule(f"{name}.{part}").register_forward_hook(
                lambda _, __, out, key=f"{name}.{part}": seen.update({key: out})
            )
    shape = frozen.base.latent_shape(config.data.resolution)
    batches = list(open_loader(config, frozen.encoder_facts, "pooled", latent_shape=shape).held_out())
    inputs = [to_inputs(batch, frozen, adapter.spec, batch.uniform) for batch in batches]
    features = torch.cat([one.given.features for one in inputs])  # type: ignore[misc]
    assert [len(one) for one in inputs] == [4, 1]
    others = features[[3, 0, 1, 2, 3]]  # each sample's is that of the one before it; the first of a process the last's
    sums = {"its": 0.0, "none": 0.0, "another": 0.0}
    squares = {index: [0.0, 0.0] for index in adapter.spec.layers}
    for number, (batch, one) in enumerate(zip(batches, inputs, strict=True)):
        rows = slice(4 * number, 4 * number + len(one))
        t = objective.time_at(batch.uniform)
        x, target = objective.noisy(one.x0, one.noise, t), objective.target(one.x0, one.noise, t)
        for name, read in {"none": torch.zeros_like(features), "another": others, "its": features}.items():
            keys_values = adapter.keys_values(adapter.image_proj(Given(read[rows])))
            out = frozen.base.denoise(x, t, one.conditioning, AdapterOutput(keys_values))
            sums[name] += float(F.mse_loss(out, target, reduction="none").mean((1, 2, 3)).sum())
        for index, found in squares.items():
            q, k, v = (seen[f"{names[index]}.{part}"] for part in ("to_q", "to_k", "to_v"))
            heads = unet.get_submodule(names[index]).heads
            for place, (key, value) in enumerate(((k, v), keys_values[index])):
                parts = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, key, value)]
                found[place] += float(F.scaled_dot_product_attention(*parts).square().sum())
    logged = held_out(made)[-1]
    wanted = {name: total / HELD_OUT for name, total in sums.items()}
    print(f"\n{wanted}")
    assert logged["held_out_loss"] == pytest.approx(wanted["its"], rel=1e-5)
    assert logged["held_out_loss/no_image"] == pytest.approx(wanted["none"], rel=1e-5)
    assert logged["held_out_loss/shuffled"] == pytest.approx(wanted["another"], rel=1e-5)
    assert len({round(value, 7) for value in wanted.values()}) == 3
    for index, (text, image) in squares.items():
        assert logged[f"attention_ratio/layer_{index:03d}"] == pytest.approx((image / text) ** 0.5, rel=1e-4)


@pytest.mark.slow
def test_the_best_checkpoint_is_saved_named_and_chosen(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checkpoint.steps_of(made) == [2, 4, 6]  # nothing else was to be saved before the end
    run = Path(shutil.copytree(made, tmp_path / "run"))
    note_loss(run, 4, 0.1)
    out = tmp_path / "best.safetensors"
    assert main(["show", str(run)]) == 0
    assert "step-00000004  held-out 0.1000, the best" in capsys.readouterr().out
    assert main(["export", str(run), str(out), "--from", "best"]) == 0
    with safe_open(out, "pt") as file:
        assert file.metadata()["step"] == "4"
    sample = ["sample", str(run), "--from", "3", "--image", str(made.parent / "data" / "0.png"), "--number", "1"]
    assert main([*sample, "--out", str(tmp_path / "o.png")]) == 1
    assert "has no checkpoint of step 3: --from takes one of 2, 4, 6" in capsys.readouterr().err
    assert main(["resume", str(run), "--from", "best", "--set", "optimiser.learning_rate=0.002"]) == 0
    assert (checkpoint.folder(run) / "aside-step-00000006").is_dir()
    page = (run / PAGE).read_text()
    assert "optimiser.learning_rate: 0.01 to 0.002" in page and "0.10000 (best)" in page


def test_the_best_survives_and_what_is_not_whole_is_no_candidate(tmp_path: Path) -> None:
    settings = RunConfig(keep_last=1, keep_every_steps=0, keep_best=True)
    for step in (1, 2, 3, 4):
        saved = checkpoint.Saved(step, {"w": torch.zeros(1)}, {})
        checkpoint.write(tmp_path, saved, {}, {})
    with pytest.raises(
        ValueError, match=r"has a held-out loss, as run\.keep_best gives: --from takes one of 1, 2, 3, 4"
    ):
        asked_best(tmp_path)
    for step, loss in ((1, 0.5), (2, 0.3), (3, 0.3), (4, float("nan"))):
        note_loss(tmp_path, step, loss)
    (checkpoint.folder(tmp_path) / checkpoint.name(1) / "held-out.json").write_text('{"held_out_lo')
    assert best(tmp_path) == 2
    assert is_best(tmp_path, 0.29) and not is_best(tmp_path, 0.3) and not is_best(tmp_path, float("nan"))
    prune(tmp_path, settings)
    assert checkpoint.steps_of(tmp_path) == [2, 4]
    forget_losses(tmp_path)  # where the data has changed
    assert best(tmp_path) is None


@pytest.mark.slow
def test_the_report_holds_all_and_asks_for_nothing(made: Path) -> None:
    page = (made / PAGE).read_text()
    print(f"\n{len(page):,} characters")
    assert page.count("<svg") >= 6 and page.count("data:image/jpeg;base64,") == 1
    names = ("held-out loss against the step", "no image", "shuffled", "image over text attention", "step-00000006")
    for words in (*names, "Step 6 of 6", "keep_best = true", "data.json"):
        assert words in page, words
    assert not re.search(r"(src|href)=.(?!data:)", page) and "http" not in page and "<script" not in page


@pytest.mark.slow
def test_a_report_that_cannot_be_written_ends_nothing(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(made, tmp_path / "run"))
    (run / PAGE).unlink()
    (run / PAGE).mkdir()
    (run / PAGE / "x").touch()
    show_report(run)
    assert "the report failed" in caplog.text and "the training goes on, and it is tried again" in caplog.text
    shutil.rmtree(run / PAGE)
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text() + '{"step": 7, "lo')  # cut off by a kill
    show_report(run)
    assert (run / PAGE).is_file()


def test_an_adapter_that_does_not_learn_its_pictures_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    proof = Proof()
    for found in [Validation(0.5, 0.6, 0.4, {})] * (PATIENCE + 2):
        proof.add(found)
    assert len(caplog.records) == 1 and "another sample's (0.4000): 0.5000" in caplog.text
    proof.add(Validation(0.3, 0.6, 0.4, {}))
    for found in [Validation(0.7, 0.6, float("nan"), {})] * PATIENCE:
        proof.add(found)
    assert len(caplog.records) == 2


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"loss": 0.12345, "learning_rate": 1e-4, "samples_per_second": 74.21, "data_wait": 0.021}
    for is_hidden in (True, False):
        with Progress(1000, 0, is_hidden) as progress:
            progress.say(10, numbers)
            progress.say(20, numbers)  # too soon for another line
            progress.validated(20, Validation(0.11, 0.13, 0.12, {}))
            progress.say(1000, numbers)
        said = capsys.readouterr().err.splitlines()
        print("\n" + "\n".join(said))
        if is_hidden:
            assert said == []
    assert re.fullmatch(r"step 10/1,000: loss 0.1235, rate 1.00e-04, 74.2 samples/s, waits 2%, \d+ s left", said[0])
    assert said[1] == "step 20/1,000: held-out 0.1100 (no image 0.1300, shuffled references 0.1200)"
    assert said[2] == "step 1,000/1,000: loss 0.1235, rate 1.00e-04, 74.2 samples/s, waits 2%, held-out 0.1100"
    assert [duration(one) for one in (59, 61, 3_700, 200_000)] == ["59 s", "1 min 1 s", "1 h 1 min", "2 d 7 h"]
