"""Every number of a config and of the command line has its range, and the sentence has the key's name."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from trainer.__main__ import main
from trainer.settings.config import Config
from trainer.settings.load import load_config
from trainer.settings.ranges import RANGES

ZERO = (
    "optimiser.learning_rate", "optimiser.epsilon", "optimiser.min_snr_gamma", "optimiser.accumulation", "run.steps",
    "run.batch_size", "run.processes", "run.sample_pictures", "run.sample_steps", "data.resolution",
)  # fmt: skip
LISTS = ("optimiser.betas", "run.sample_weights")
FAMILY = ("adapter.num_tokens", "adapter.width", "adapter.depth", "adapter.lora_rank")  # held to by the families' rules


def numbers() -> dict[str, type]:
    """Every number of a config, by its key."""
    found = {}
    for section in dataclasses.fields(Config):
        hints = typing.get_type_hints(typing.get_type_hints(Config)[section.name])
        found |= {
            f"{section.name}.{key}": hint for key, hint in hints.items() if hint in (int, float, tuple[float, ...])
        }
    return found


def test_every_number_has_its_range() -> None:
    assert {*numbers()} - {*FAMILY} == {*RANGES}


@pytest.mark.parametrize("key", RANGES)
def test_what_is_out_of_range_is_refused_by_name(key: str) -> None:
    wrong = ["nan", "inf"] if numbers()[key] is not int else []
    wrong += [] if key in LISTS else ["-1"] + ["0"] * (key in ZERO)
    if key in LISTS:
        wrong = [f"[0.5, {value}]" for value in (*wrong, *(["1.0", "-0.1"] if key == "optimiser.betas" else []))]
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{key} = ") as found:
            load_config("sd15", [f"{key}={value}"])
    print(f"\n{found.value}")


@pytest.mark.parametrize(
    "change", ["optimiser.warmup_steps=0", "data.workers=0", "run.save_every_steps=0", "run.seed=0"]
)
def test_neutral_values_are_taken(change: str) -> None:
    load_config("sd15", [change])


@pytest.mark.parametrize(
    "wrong", ["--steps 0", "--number 0", "--resolution 60", "--resolution -8", "--seed -1", "--weight nan"]
)
def test_numbers_of_sample(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "a.safetensors", "--image", "a.png", *wrong.split()]) == 1
    message = capsys.readouterr().err
    print(f"\n{message}")
    assert message.startswith(f"error: {wrong.replace(' ', ' = ')} should be")


def test_numbers_of_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["train", "sd15", "--processes", "0"], ["faces", "data", "out.jsonl", "--size", "0"]):
        assert main(wrong) == 1
        assert wrong[-2] in capsys.readouterr().err
