"""Presets, the plan's numbers, the learning rate, and configs that survive writing and reading."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from trainer.commands.plan import describe, make_plan
from trainer.settings.config import Config, fixed_values, rescale
from trainer.settings.load import PRESETS, load_config, save_config
from trainer.step.schedule import learning_rate

# Counted by hand from the published layouts: projection, and K' and V' of every layer.
TRAINED = {
    "sd15": 3_150_336 + 19_169_280,
    "sd15_plus": 29_918_208 + 19_169_280,
    "sdxl": 1024 * 4 * 2048 + 4 * 2048 + 2 * 2048 + 2 * 2048 * (10 * 640 + 60 * 1280),
    "sdxl_plus": 82_961_664 + 2 * 2048 * (10 * 640 + 60 * 1280),
}


@pytest.mark.parametrize("name", TRAINED)
def test_preset_plans_the_published_sizes(name: str) -> None:
    config = load_config(name)
    plan = make_plan(config)
    text = describe(config, plan)
    print("\n" + text)
    assert plan.trained == TRAINED[name]
    assert f"{TRAINED[name]:,}" in text
    assert plan.layers == (16 if name.startswith("sd15") else 70)
    assert plan.tokens == (16 if name.endswith("plus") else 4)


def test_the_papers_preset_is_the_papers() -> None:
    config = load_config("sd15")
    assert make_plan(config).trained == 22_319_616
    assert (config.run.steps, config.samples_per_step, config.run.parallel) == (1_000_000, 64, "zero2")
    assert (config.optimiser.learning_rate, config.optimiser.weight_decay, config.optimiser.schedule) == (
        1e-4,
        0.01,
        "constant",
    )
    assert (config.data.drop_text, config.data.drop_image, config.data.drop_both) == (0.05, 0.05, 0.05)
    off = config.optimiser
    assert (off.clip, off.ema, off.noise_offset, off.timesteps, off.loss_weighting, off.eight_bit) == (
        0, 0, 0, "uniform", "none", False,
    )  # fmt: skip


def test_written_configs_read_back_the_same(tmp_path: Path) -> None:
    for preset in PRESETS.glob("*.toml"):
        config = load_config(preset, ['adapter.licence=CC "BY" 4.0', "run.sample_weights=[0.25, 1]", "data.source=a b"])
        save_config(config, tmp_path / "config.toml")
        assert load_config(tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.step=3", "did you mean run.steps?"),
        ("optimizer.clip=1", "did you mean optimiser?"),
        ("run.steps=many", "run.steps = 'many' should be a whole number"),
        ("run.parallel=zero4", "choose one of none, ddp, zero1, zero2, zero3"),
        ("data.drop_both=0.95", "exclusive events"),
        ("run.steps", "expected section.key=value"),
        ("data.resolution=500", "multiple of 8"),
        ("run.keep_best=true", "goes by the held-out loss: set data.held_out"),
    ],
)
def test_wrong_values_are_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as found:
        load_config("sd15", [override])
    print(f"\n{found.value}")


def test_rescaling_keeps_the_samples_of_a_step() -> None:
    config = load_config("sd15")
    for processes in (1, 2, 4, 8, 16, 64):
        changed = rescale(config, processes)
        assert changed.samples_per_step == 64
        assert changed.run.batch_size <= config.run.batch_size
        assert fixed_values(changed) == fixed_values(config)
    with pytest.raises(ValueError, match="cannot be shared by 3 processes"):
        rescale(config, 3)


def test_learning_rate() -> None:
    def rates(**values: object) -> list[float]:
        config = Config()
        config = dataclasses.replace(
            config,
            optimiser=dataclasses.replace(config.optimiser, learning_rate=1.0, **values),  # type: ignore[arg-type]
            run=dataclasses.replace(config.run, steps=10),
        )
        return [round(learning_rate(config.optimiser, config.run.steps, step), 6) for step in range(10)]

    assert rates() == [1.0] * 10
    assert rates(warmup_steps=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(schedule="linear") == [round(1 - step / 10, 6) for step in range(10)]
    assert rates(schedule="cosine")[5] == 0.5
