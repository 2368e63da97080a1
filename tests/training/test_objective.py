"""What a base is trained to predict: DDPM's table and the rectified flow, each against diffusers' own scheduler."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ipadapter_core import read_adapter
from tests.support import runs, tiny_models
from trainer.__main__ import main
from trainer.base.files import BaseFiles
from trainer.data import order
from trainer.run import checkpoint, folder, loop
from trainer.settings.config import ModelConfig, OptimiserConfig
from trainer.settings.load import load_config
from trainer.step.objective import Discrete, Flow, Objective, build_objective

SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def discrete(prediction: str = "epsilon", **settings: Any) -> Discrete:
    return Discrete(SD15 | {"prediction_type": prediction}, OptimiserConfig(**settings))


def latents(seed: int, number: int = 3) -> Tensor:
    return torch.randn(number, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def uniform(number: int) -> Tensor:
    return torch.tensor([order.draws(0, 0, place).timestep for place in range(number)], dtype=torch.float64)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_discrete_is_the_papers_formulas(prediction: str) -> None:
    x0, noise, time = latents(0), latents(1), torch.tensor([0, 400, 999])
    alphas = DDPMScheduler(**SD15).alphas_cumprod
    kept, snr = alphas[time].view(-1, 1, 1, 1), alphas / (1 - alphas)
    objective = discrete(prediction)
    wanted = {"epsilon": noise, "sample": x0, "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * x0}
    assert torch.allclose(objective.noisy(x0, noise, time), kept.sqrt() * x0 + (1 - kept).sqrt() * noise, atol=1e-6)
    assert torch.allclose(objective.target(x0, noise, time), wanted[prediction], atol=1e-6)
    assert torch.equal(objective.weight(time), torch.ones(3))
    divisor = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones(1000)}[prediction]
    min_snr = discrete(prediction, loss_weighting="min_snr").weight(torch.arange(1000))
    assert torch.allclose(min_snr, snr.clamp(max=5) / divisor, rtol=1e-4)
    by_snr = discrete(prediction, loss_weighting="snr", timesteps="snr")
    assert float((by_snr.weights * by_snr.probabilities).sum()) == pytest.approx(1, rel=1e-5)
    assert float(by_snr.probabilities[-1] / by_snr.probabilities[0]) == pytest.approx(1 / 0.15, rel=1e-6)


def test_a_prediction_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="the base predicts 'score': expected one of epsilon, v_prediction, sample"):
        discrete("score")


@pytest.mark.parametrize("timesteps", ["uniform", "snr"])
def test_timesteps_follow_their_probabilities(timesteps: str) -> None:
    objective = discrete(timesteps=timesteps)
    drawn = objective.time(uniform(20_000))
    quarters = np.histogram(drawn.numpy(), bins=4, range=(0, 1000))[0] / len(drawn)
    expected = objective.probabilities.view(4, 250).sum(1).numpy()
    print(f"\nlargest difference of a quarter's share {np.abs(quarters - expected).max():.4f}")
    assert np.abs(quarters - expected).max() < 0.015
    assert objective.time(torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)).tolist() == [0, 999]


def test_the_held_out_spread_and_the_quartiles_are_even() -> None:
    for objective in (discrete(), Flow(FLOW)):
        spread = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
        noisiness = objective.noisiness(objective.time_at(spread))
        assert torch.allclose(noisiness.double(), spread, atol=1e-3)
    quartiles = (discrete().noisiness(torch.arange(1000)) * 4).long()
    assert torch.equal(quartiles, torch.arange(1000) * 4 // 1000)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_has_the_times_of_flow_match_euler(shift: float) -> None:
    """At t = 1, 0.999, ... 0.001 before the shift, each by the uniform number that draws it."""
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    t = torch.linspace(1, 1e-3, 1000, dtype=torch.float64)
    ours = Flow(FLOW | {"shift": shift}).time(torch.special.ndtr(t.logit()))
    off = float((ours - theirs.timesteps).abs().max())
    print(f"\nshift {shift:g}: times of 0..1000 differ by at most {off:.1e}")
    assert off < 2e-3
    assert torch.allclose(ours / 1000, theirs.sigmas, atol=2e-6)


def test_flow_draws_a_logit_normal() -> None:
    t = Flow(FLOW | {"shift": 1.0}).time(uniform(20_000)) / 1000
    found = t.double().logit()
    print(f"\nlogit of t: mean {found.mean():.3f}, deviation {found.std():.3f}")
    assert abs(float(found.mean())) < 4 / math.sqrt(len(t)) and abs(float(found.std()) - 1) < 0.03
    assert Flow(FLOW).time(torch.zeros(1, dtype=torch.float64)) == 0
    assert float(Flow(FLOW).time(torch.tensor([0.5], dtype=torch.float64))) == pytest.approx(750)  # 3 t / (1 + 2 t)


def test_flow_is_noisy_as_flow_match_euler() -> None:
    theirs, flow, x0, noise = FlowMatchEulerDiscreteScheduler(shift=3.0), Flow(FLOW), latents(0), latents(1)
    time = theirs.timesteps[[3, 500, 998]]
    ours, reference = flow.noisy(x0, noise, time), theirs.scale_noise(x0, time, noise)
    print(f"\nnoisy latents differ by at most {(ours - reference).abs().max():.1e}")
    assert torch.allclose(ours, reference, atol=1e-6)
    later = flow.noisy(x0, noise, time - 1)  # the target is how x moves with t
    assert torch.allclose((ours - later) * 1000, flow.target(x0, noise, time), atol=1e-3)


def test_flow_samples_by_eulers_method() -> None:
    """A curved field, so that every step counts, against the method written out."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.cos(3 * x) - t / 1000

    sampler, x = Flow(FLOW).sampler(), latents(0)
    sampler.set_timesteps(12, device=torch.device("cpu"))
    for time in sampler.timesteps:
        x = sampler.step(field(x, time), time, x).prev_sample
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(12)
    mine, sigmas = latents(0), theirs.sigmas
    for now, following in itertools.pairwise(sigmas):
        mine = mine + (following - now) * field(mine, 1000 * now)
    assert torch.allclose(x, mine, atol=1e-5)
    assert float(sigmas[0]) == 1 and float(sigmas[-1]) == 0


def fit_base(objective: Objective, is_control: bool) -> tuple[float, float, UNet2DConditionModel]:
    """A tiny UNet trained on two patterns; the mean loss of the first and last steps. Control: targets of others."""
    torch.manual_seed(0)
    unet, empty = tiny_models.tiny_unet(), torch.zeros(16, 1, tiny_models.CONTEXT)
    optimiser, losses = torch.optim.AdamW(unet.parameters(), lr=2e-3), []
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        x0 = patterns()[torch.randint(2, (16,), generator=generator)]
        noise = torch.randn(16, 4, 8, 8, generator=generator)
        time = objective.time(torch.rand(16, generator=generator, dtype=torch.float64))
        wanted = objective.target(x0, noise, time)
        wanted = wanted.roll(1, 0) if is_control else wanted
        loss = (unet(objective.noisy(x0, noise, time), time, empty).sample - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return sum(losses[:5]) / 5, sum(losses[-10:]) / 10, unet


def patterns() -> Tensor:
    """Two pictures [2, 4, 8, 8]: bars across and bars along, of mean 0 and variance 1."""
    bars = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(2).expand(4, 8, 8)
    return torch.stack([bars, bars.transpose(1, 2)])


@torch.no_grad()
def drawn(objective: Objective, unet: UNet2DConditionModel) -> float:
    """Sample from the base: how far pictures are from the nearest pattern, mean squared."""
    x, sampler = latents(5, 16), objective.sampler()
    sampler.set_timesteps(10, device=torch.device("cpu"))
    for time in sampler.timesteps:
        x = sampler.step(unet(x, time, torch.zeros(16, 1, tiny_models.CONTEXT)).sample, time, x).prev_sample
    return float((x[:, None] - patterns()).square().mean((2, 3, 4)).amin(1).mean())


@pytest.mark.slow
def test_a_base_learns_by_flow() -> None:
    """Its loss falls far below that of a base whose targets are another sample's, and it draws what it was shown."""
    objective = Flow(FLOW)
    first, last, unet = fit_base(objective, is_control=False)
    _, control, unlearned = fit_base(objective, is_control=True)
    near, far = drawn(objective, unet), drawn(objective, unlearned)
    print(
        f"\nloss {first:.3f} -> {last:.3f}, control {control:.3f}; distance to a pattern {near:.3f}, control {far:.3f}"
    )
    assert last < 0.6 * first and last < 0.6 * control
    assert near < 0.5 * far


@pytest.mark.slow
def test_a_run_on_a_flow_base(tmp_path: Path) -> None:
    """Trains, validates and draws; interrupted, it ends bit-equal; its file says flow, and `sample` draws with it."""
    config = runs.tiny_config(
        tmp_path, data={"held_out": 2},
        run={"steps": 4, "validate_every_steps": 2, "sample_every_steps": 4, "sample_steps": 2, "sample_pictures": 1},
    )  # fmt: skip
    tiny_models.write_scheduler(Path(config.model.base) / "scheduler", "flow")
    whole = folder.start(config)
    loop.train(config, whole)
    half = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "half"), steps=2))
    place = folder.start(half)
    loop.train(half, place)
    loop.train(folder.resume(place, ["run.steps=4"]), place)
    one, other = runs.final_state(whole), runs.final_state(place)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert runs.losses(whole) == runs.losses(place)
    file = read_adapter(checkpoint.latest(whole) / checkpoint.ADAPTER)  # type: ignore[operator]
    assert file.metadata["prediction"] == "flow"
    out = tmp_path / "sampled.png"
    picture = str(tmp_path / "data" / "0.png")
    assert main(["sample", str(whole), "--image", picture, "--out", str(out), "--steps", "2", "--number", "1"]) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (128, 64)


def test_what_does_not_go_with_a_flow_is_refused(tmp_path: Path) -> None:
    for key, value in (("timesteps", "snr"), ("loss_weighting", "min_snr")):
        message = f"optimiser.{key} = '{value}' weighs by a table"
        with pytest.raises(ValueError, match=message) as found:
            build_objective(FLOW, OptimiserConfig(**{key: value}))
        with pytest.raises(ValueError, match=message):
            load_config("sd15", ["model.prediction=flow", f"optimiser.{key}={value}"])
        print(f"\n{found.value}")
    with pytest.raises(ValueError, match="set it to false there"):
        build_objective(FLOW | {"use_dynamic_shifting": True}, OptimiserConfig())
    base = str(tiny_models.write_base(tmp_path / "base", prediction="flow"))
    with pytest.raises(ValueError, match=r'is a flow, and model\.prediction is "epsilon"'):
        BaseFiles(ModelConfig(base=base, prediction="epsilon")).scheduler_config()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
def test_metadata_names_the_prediction_that_auto_stands_for(prediction: str, tmp_path: Path) -> None:
    config = runs.tiny_config(tmp_path, run={"steps": 1, "save_every_steps": 1})
    tiny_models.write_scheduler(Path(config.model.base) / "scheduler", prediction)
    assert config.model.prediction == "auto"
    loop.train(config, folder.start(config))
    newest = checkpoint.latest(Path(config.run.folder))
    assert newest is not None
    assert read_adapter(newest / checkpoint.ADAPTER).metadata["prediction"] == prediction
