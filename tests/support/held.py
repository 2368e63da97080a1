"""Runs of the nodes held to the formulas, call by call."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.support import figures, formulas, models
from tests.support.formulas import Said

BAR = 1e-5
CHANNELS = {"SD15": 32, "SDXL": 64}
WIDTH = {"SD15": 768, "SDXL": 2048}
FEATURE = {"base": "pooled", "plus": "penultimate"}
MODULES = {"SD15": 16, "SDXL": 11}


def model(base: str = "SD15", channels: int | None = None) -> Any:
    return models.comfy_model(base, channels or CHANNELS[base])


@functools.cache
def weights(family: str = "base", base: str = "SD15", channels: int | None = None) -> dict[str, Tensor]:
    return models.adapter_weights(family, model(base, channels))


@functools.cache
def adapter(family: str = "base", base: str = "SD15", channels: int | None = None) -> Any:
    return models.loaded_adapter(weights(family, base, channels))


@functools.cache
def prompt(pictures: int = 1, seed: int = 2) -> models.Features:
    """Features of few hidden states, so that projections are quick; all have the same picture of zeros."""
    found = models.Features.random(pictures, seed, tokens=3)
    found.uncond["penultimate"] = models.Features.random(1, 1, tokens=3).cond["penultimate"]
    return found


def said(family: str = "base", base: str = "SD15", of: Any = None, negative: Any = None, **settings: Any) -> Said:
    """The formula's side of a reference. of, negative: image prompts."""
    feature, of = FEATURE[family], of or prompt()
    nothing = of.unconditional(feature) if negative is None else negative.features(feature)
    channels = settings.pop("channels", None)
    return Said(weights(family, base, channels), of.features(feature), nothing, **settings)


def sigma_at(patched: Any, progress: float) -> float:
    sampling = patched.get_model_object("model_sampling")
    return min(float(sampling.percent_to_sigma(progress)), float(sampling.sigma_max))


def calls_of(
    patched: Any, base: str = "SD15", progress: Sequence[float] = (0.4,), batch: int = 1,
    size: tuple[int, int] = (8, 8), sampler: str = "euler", cfg: float = 4.0, positive: Any = None, seed: int = 3,
) -> list[dict[str, Any]]:  # fmt: skip
    """The calls of a run whose steps are at these places of the sampling."""
    pooled = 1280 if base == "SDXL" else None
    negative = models.text(7, WIDTH[base], tokens=7, pooled=pooled)
    positive = positive or models.text(5, WIDTH[base], tokens=7, pooled=pooled)
    noise = torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(seed))
    sigmas = torch.tensor([*(sigma_at(patched, place) for place in progress), 0.0])
    with models.Calls(patched) as calls, torch.inference_mode():
        models.comfy.sample.sample(
            patched, noise, len(progress), cfg, sampler, "normal", positive, negative, torch.zeros_like(noise),
            sigmas=sigmas, seed=seed, disable_pbar=True,
        )  # fmt: skip
    return calls


def expected(call: dict[str, Any], references: Sequence[Said], base: str = "SD15", channels: int | None = None) -> Any:
    """The formula's prediction of a call."""
    unet = models.diffusers_unet(base, channels or CHANNELS[base])
    return formulas.predict(unet, call, references, model(base, channels).get_model_object("model_sampling").sigmas)


def differences(
    calls: Sequence[dict[str, Any]], references: Sequence[Said], base: str = "SD15", channels: int | None = None
) -> list[float]:
    return [figures.relative(call["output"], expected(call, references, base, channels)) for call in calls]


def hold(what: str, calls: Sequence[dict[str, Any]], references: Sequence[Said], base: str = "SD15",
         other: Sequence[Said] | None = None, channels: int | None = None) -> float:  # fmt: skip
    """Every call is the formula's; print and return the largest difference.

    other: what it must differ from in at least one call, so that the control is seen to act.
    """
    assert calls
    worst = max(differences(calls, references, base, channels))
    line = f"{what}: {worst:.1e} of the formula"
    if other is not None:
        effect = 0.0
        for call in calls:  # the first that differs will do
            effect = max(effect, *differences([call], other, base, channels))
            if effect > 20 * BAR:
                break
        line += f", effect {effect:.1e}"
        assert effect > 20 * BAR, line
    print(line)
    assert worst <= BAR, line
    return worst
