"""When an image prompt counts: a curve over the sampling and shares of the roles, held to the package at each scale."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.support import figures, host, models, oracles

pytestmark = pytest.mark.comfy
BAR = 1e-5
Curve, Influence = models.core.Curve, models.core.Influence


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    return models.adapter_weights("base", models.comfy_model("SD15", 32))


@functools.cache
def adapter() -> Any:
    return models.loaded_adapter(weights())


def calls_of(model: Any, steps: int = 5, **kwargs: Any) -> list[dict[str, Any]]:
    """With the scheduler "normal", step i of n is at the progress i / (n - 1)."""
    with models.Calls(model) as calls:
        models.sample(model, models.text(5), models.text(0), steps=steps, size=(8, 8), **kwargs)
    return calls


def predicted(call: dict[str, Any], scale: float) -> torch.Tensor:
    """The package's prediction of a call of ours at a constant scale."""
    picture = models.Features.random().features("pooled")
    given = [picture if role == 0 else torch.zeros_like(picture) for role in call["roles"]]
    with oracles.package(models.diffusers_unet("SD15", 32), weights(), scale) as predict:
        return predict(call["x"], call["t"], call["context"], torch.cat(given))


def test_every_step_is_a_run_at_its_own_weight() -> None:
    curve = Curve(((0.0, 0.2), (0.5, 1.0), (1.0, 0.4)))
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    patched = models.apply(model, adapter(), prompt, influence=Influence(weight=1.5, curve=curve))
    scales = (0.3, 0.9, 1.5, 1.05, 0.6)
    errors = []
    for call, scale in zip(calls_of(patched), scales, strict=True):
        errors.append(figures.relative(call["output"], predicted(call, scale)))
        assert figures.relative(call["output"], predicted(call, scale + 0.1)) > 1e-3
    print(f"\nagainst the package at scales {scales}: {[f'{error:.1e}' for error in errors]}")
    assert max(errors) <= BAR


def test_where_a_curve_is_nothing_the_run_is_the_bases() -> None:
    """Bit for bit, and nothing is computed there."""
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    curve = Curve(((0.4, 0.5), (0.8, 0.5), (0.8, 0.0), (1.0, 0.0)))
    patched = models.apply(model, adapter(), prompt, influence=Influence(curve=curve))
    calls = calls_of(patched)
    acts = [bool(call["options"]["image_prompt_kv"]) for call in calls]
    assert acts == [False, False, True, True, False]
    base = calls_of(model)
    assert [torch.equal(a["output"], b["output"]) for a, b in zip(calls, base)][:2] == [True, True]
    assert figures.relative(calls[2]["output"], predicted(calls[2], 0.5)) <= BAR


def test_a_window_is_the_range_bit_for_bit() -> None:
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    window = models.apply(model, adapter(), prompt, influence=Influence(curve=Curve.window(0.3, 0.8)))
    ranged = models.apply(model, adapter(), prompt, start_percent=0.3, end_percent=0.8)
    for a, b in zip(calls_of(window), calls_of(ranged), strict=True):
        assert torch.equal(a["output"], b["output"])
        assert all(given.weight is None for given in a["options"]["image_prompt_kv"].values())


def test_a_curve_with_a_mask_is_both() -> None:
    """Half the curve with a mask is half the mask."""
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    mask = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(4))
    half = Curve(((0.0, 0.5), (1.0, 0.5)))
    both = models.apply(model, adapter(), prompt, influence=Influence(mask=mask, curve=half))
    thin = models.apply(model, adapter(), prompt, mask=mask / 2)
    for a, b in zip(calls_of(both, steps=2), calls_of(thin, steps=2), strict=True):
        figures.show("mask and curve", a["output"], b["output"], BAR)


@pytest.mark.parametrize("roles", [(0.5, 1.0), (1.0, 0.0)])
def test_shares_of_the_roles(roles: tuple[float, float]) -> None:
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    patched = models.apply(model, adapter(), prompt, influence=Influence(weight=0.8, roles=roles))
    (call,) = calls_of(patched, steps=1)
    for row, role in enumerate(call["roles"]):
        one = {"x": call["x"][row, None], "t": call["t"][row, None], "context": call["context"][row, None]}
        expected = predicted(one | {"roles": [role]}, 0.8 * roles[role])
        assert figures.relative(call["output"][row, None], expected) <= BAR


def test_progress_is_the_inverse_of_comfyuis_percent() -> None:
    to_sigma = models.comfy_model("SD15", 32).get_model_object("model_sampling").percent_to_sigma
    progress = host.part("nodes.progress").Progress(to_sigma)
    worst = max(abs(progress(to_sigma(place / 777)) - place / 777) for place in range(778))
    print(f"\nprogress, worst difference {worst:.1e}")
    assert worst < 5e-5
