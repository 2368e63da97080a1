"""Every sampler and every scheduler of ComfyUI: each call of the model is the formula at its own sigma and roles."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support import figures, held, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
import comfy.samplers  # noqa: E402  (on the path only after the pack is loaded)

STEPS = 3
LEVELS = [(0.0, 1.3), (0.5, 0.2), (1.0, 1.0)]
RANGE = (0.05, 0.85)


def curve(place: float) -> float:
    """Straight between LEVELS, and nothing outside of RANGE."""
    if not RANGE[0] <= place <= RANGE[1]:
        return 0.0
    first, second = 1.3 - 2.2 * place, 0.2 + 1.6 * (place - 0.5)
    return first if place < 0.5 else second


def calls_of(patched: Any, sampler: str, scheduler: str) -> list[dict[str, Any]]:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    with models.Calls(patched) as calls, torch.inference_mode():
        models.comfy.sample.sample(
            patched, noise, STEPS, 4.0, sampler, scheduler, models.text(5, tokens=7), models.text(7, tokens=7),
            torch.zeros_like(noise), seed=3, disable_pbar=True,
        )  # fmt: skip
    return calls


def model() -> Any:
    curves = {"curve": {"points": LEVELS, "interpolation": "linear"}}
    limits = dict(zip(("start_percent", "end_percent"), RANGE))
    return models.apply(held.model(), held.adapter(), held.prompt(), **curves, **limits)


def sweep(pairs: list[tuple[str, str]]) -> None:
    """All of these run; roles by the texts, which no guider exchanges."""
    patched, said = model(), held.said(curve=curve)
    texts = {role: models.text(seed, tokens=7)[0][0] for role, seed in ((0, 5), (1, 7))}
    worst: dict[tuple[str, str], float] = {}
    count = acted = 0
    for pair in pairs:
        calls = calls_of(patched, *pair)
        assert calls, pair
        for call in calls:
            for text, role in zip(call["context"], call["roles"], strict=True):
                assert torch.equal(text[None], texts[role]), pair
        worst[pair] = max(held.differences(calls, [said]))
        acted += any(figures.relative(call["output"], held.expected(call, [])) > 1e-3 for call in calls)
        count += len(calls)
    print(f"\n{len(pairs)} runs, {count} calls, {acted} runs with an effect")
    for pair, error in sorted(worst.items(), key=lambda item: -item[1])[:5]:
        print(f"  {' '.join(pair)}: {error:.1e} of the formula")
    assert max(worst.values()) <= held.BAR
    assert acted >= 0.9 * len(pairs)


def test_every_sampler() -> None:
    sweep([(name, "normal") for name in comfy.samplers.KSampler.SAMPLERS])


def test_every_scheduler() -> None:
    sweep([("euler", name) for name in comfy.samplers.KSampler.SCHEDULERS])
