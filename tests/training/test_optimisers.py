"""Every optimiser by its name: its own numbers, a resume to the bit, and what does not go with it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support import runs
from trainer.commands.plan import trained_memory
from trainer.run import checkpoint, folder, loop
from trainer.run.optimisers import build_optimiser
from trainer.run.resume import GoingOn
from trainer.settings.config import Config
from trainer.settings.load import load_config, save_config
from trainer.settings.optimisers import OPTIMISERS, name_of

STEPS = 4
# bitsandbytes is not in the `test` extra: where it is installed, diffusers imports it at every start of the trainer
HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
INSTALLED = [name for name in OPTIMISERS if name != "adamw8bit" or HAS_BITSANDBYTES]
RATES = {"adamw": 1e-2, "adamw8bit": 1e-2, "lion": 1e-3, "prodigy": 1.0, "adafactor": 1e-2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("optimisers")


def config(place: Path, optimiser: str, **run: object) -> Config:
    """A run of four steps in a folder of the optimiser's name, saved at each second."""
    run = {"folder": str(place / optimiser), "steps": STEPS, "save_every_steps": STEPS // 2} | run
    section = {"name": optimiser, "learning_rate": RATES[optimiser], "clip": 1.0}
    if not OPTIMISERS[optimiser].betas:
        section["betas"] = []
    return runs.tiny_config(place, run=run, optimiser=section)


def state(run: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.folder(run) / checkpoint.name(step) / checkpoint.STATE)


def ends_the_same(whole: dict[str, torch.Tensor], run: Path) -> None:
    again, half = state(run), state(run, STEPS // 2)
    learned = [key for key in whole if key.startswith("state.")]
    print(f"\n{run.name}: {len(learned)} tensors of state, {sum(whole[key].nbytes for key in learned):,} bytes")
    assert learned and whole.keys() == again.keys()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []
    assert all(torch.isfinite(value.float()).all() for value in whole.values())
    assert any(not torch.equal(half[key], whole[key]) for key in whole if key.startswith("weights."))


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", INSTALLED)
def test_a_run_gone_on_with_ends_as_it_did(optimiser: str, place: Path) -> None:
    made = config(place, optimiser)
    run = folder.start(made)
    loop.train(made, run)
    whole = state(run)
    loop.train(made, run, GoingOn(from_step=STEPS // 2))
    ends_the_same(whole, run)


@pytest.mark.slow
@pytest.mark.parametrize(("optimiser", "parallel"), [("prodigy", "ddp"), ("lion", "zero2")])
def test_and_over_two_processes(optimiser: str, parallel: str, place: Path) -> None:
    """Prodigy keeps numbers beside its tensors; of Lion's state each process has a part."""
    run = place / parallel
    made = config(place, optimiser, folder=str(run), processes=2, batch_size=2, parallel=parallel)
    runs.run("train", runs.write_config(made, place / f"{parallel}.toml"))
    whole = state(run)
    runs.run("resume", run, "--from", str(STEPS // 2))
    ends_the_same(whole, run)
    if optimiser == "prodigy":
        assert float(whole["state.d.group"]) != 1e-6  # the rate has moved from where it starts


@pytest.mark.parametrize("name", INSTALLED)
def test_its_own_values_where_a_config_gives_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'[optimiser]\nname = "{name}"\n')
    made, facts = load_config(tmp_path / "mine.toml"), OPTIMISERS[name]
    found = made.optimiser
    assert (found.learning_rate, found.betas, found.epsilon) == (facts.rate, facts.betas, facts.epsilon)
    save_config(made, tmp_path / "all.toml")
    assert load_config(tmp_path / "all.toml") == made
    group = build_optimiser(made, torch.nn.Linear(2, 2)).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (facts.rate, 0.01)
    if facts.betas:
        assert tuple(group["betas"]) == facts.betas


def test_eight_bit_is_the_older_word_for_adamw8bit() -> None:
    words = ("optimiser.eight_bit=true", "optimiser.name=adamw8bit")
    found = [load_config("sd15", ["run.parallel=ddp", word]) for word in words]
    assert [name_of(made.optimiser) for made in found] == ["adamw8bit", "adamw8bit"]
    bytes_of = [trained_memory(made, 1000)["optimiser state"] for made in found]
    assert bytes_of == [2000, 2000]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("name=adam", "optimiser.name = 'adam' is unknown: choose one of adamw, adamw8bit, lion, prodigy, adafactor"),
        ("name=prodigy", "optimiser.learning_rate = 0.0001 is a factor of the rate that prodigy finds by itself"),
        ("name=lion epsilon=1e-8", "optimiser.epsilon = 1e-08, and lion reads none"),
        ("name=adafactor betas=[0.9,0.999]", r"optimiser.betas = \[0.9, 0.999\], and adafactor reads none"),
        ("name=lion eight_bit=true", "optimiser.eight_bit is AdamW's, and optimiser.name is lion"),
        ("name=adafactor", "optimiser.name = 'adafactor' and DeepSpeed exclude each other"),
        ("eight_bit=true", "optimiser.eight_bit and DeepSpeed exclude each other"),
        ("betas=[0.9]", r"optimiser.betas = \[0.9\] should be two numbers, like \[0.9, 0.999\]"),
    ],
)
def test_what_it_has_no_use_for_is_refused(changes: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as found:
        load_config("sd15", [f"optimiser.{change}" for change in changes.split()])
    print(f"\n{found.value}")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("adamw8bit", "bitsandbytes.optim", "bitsandbytes"),
        ("lion", "lion_pytorch", "lion-pytorch"),
        ("prodigy", "prodigyopt", "prodigyopt"),
    ],
)
def test_a_missing_library_is_named(name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    changes = ["run.parallel=ddp", f"optimiser.name={name}", f"optimiser.learning_rate={RATES[name]}"]
    with pytest.raises(ValueError, match=f"the optimiser {name} needs {package}: pip install {package}"):
        build_optimiser(load_config("sd15", changes), torch.nn.Linear(2, 2))
