"""Each chunk of a batch gets the image tokens of its role, whatever the guider does with its conditionings.

Every forward pass of ComfyUI's UNet is recorded; a chunk's role is known here by its text, and its prediction is
compared with the package's in diffusers' UNet, chunk by chunk.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.support import figures, models, oracles

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

CHANNELS = 32
BAR = 1e-5
POSITIVE, OTHER, NEGATIVE, EMPTY = 5, 6, 7, 0  # seeds of texts
LATENT = (16, 16)


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    return models.adapter_weights("base", models.comfy_model("SD15", CHANNELS))


@pytest.fixture
def patched() -> Any:
    return models.apply(models.comfy_model("SD15", CHANNELS), weights(), models.Features.random())


def run(guider: Any, steps: int = 2, size: tuple[int, int] = LATENT, batch: int = 1) -> list[dict[str, Any]]:
    """Sample with a guider and record the forward passes."""
    import comfy.samplers

    noise = torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(3))
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", steps)
    with models.Calls(guider.model_patcher) as calls, torch.inference_mode():
        guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)
    return calls


def guider(kind: Any, model: Any, *conditionings: Any, **cfg: float) -> Any:
    made = kind(model)
    made.set_conds(*conditionings)
    made.set_cfg(**cfg)
    return made


def plain(model: Any, positive: Any, negative: Any, cfg: float = 4.0) -> Any:
    import comfy.samplers

    return guider(comfy.samplers.CFGGuider, model, positive, negative, cfg=cfg)


def hold_to_reference(calls: list[dict[str, Any]], conditional: set[int]) -> list[int]:
    """Compare every chunk with the package's prediction for its role; returns the texts' seeds in the order seen."""
    prompt = models.Features.random()
    known = {seed: models.text(seed)[0][0] for seed in (POSITIVE, OTHER, NEGATIVE, EMPTY)}
    seen, worst, contrast = [], 0.0, 1.0
    with oracles.package(models.diffusers_unet("SD15", CHANNELS), weights(), 1.0) as predict:
        for call in calls:
            for x, t, context, output in zip(call["x"], call["t"], call["context"], call["output"]):
                (seed,) = (seed for seed, states in known.items() if torch.equal(states[0], context))
                seen.append(seed)
                roles = [prompt.features("pooled"), prompt.unconditional("pooled")]
                right, wrong = roles if seed in conditional else reversed(roles)
                given = (x[None], t[None], context[None])
                worst = max(worst, figures.relative(output[None], predict(*given, right)))
                contrast = min(contrast, figures.relative(output[None], predict(*given, wrong)))
    print(f"\n{len(seen)} chunks: worst difference {worst:.1e}; with the other role it would be {contrast:.1e} or more")
    assert worst <= BAR < contrast
    return seen


def test_plain_guidance(patched: Any) -> None:
    calls = run(plain(patched, models.text(POSITIVE), models.text(NEGATIVE)))
    assert set(hold_to_reference(calls, {POSITIVE})) == {POSITIVE, NEGATIVE}


def test_cfg_1(patched: Any) -> None:
    calls = run(plain(patched, models.text(POSITIVE), models.text(NEGATIVE), cfg=1.0))
    assert set(hold_to_reference(calls, {POSITIVE})) == {POSITIVE}


def test_low_memory(patched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(patched), "get_free_memory", lambda *_: 0)
    calls = run(plain(patched, models.text(POSITIVE), models.text(NEGATIVE)))
    assert all(len(call["x"]) == 1 for call in calls)
    hold_to_reference(calls, {POSITIVE})


def test_two_positives(patched: Any) -> None:
    positive = models.text(POSITIVE) + models.text(OTHER)
    assert set(hold_to_reference(run(plain(patched, positive, models.text(NEGATIVE))), {POSITIVE, OTHER})) == {5, 6, 7}


def test_positives_on_areas(patched: Any) -> None:
    """The sampler copies a positive's area, and its id, into the negative list."""
    positive = models.text(POSITIVE, area=(8, 16, 0, 0), strength=1.0) + models.text(
        OTHER, area=(8, 16, 8, 0), strength=1.0
    )
    calls = run(plain(patched, positive, models.text(NEGATIVE)))
    seen = hold_to_reference(calls, {POSITIVE, OTHER})
    assert seen.count(NEGATIVE) > seen.count(POSITIVE)  # the whole latent, and each area


def test_a_text_in_both_lists(patched: Any) -> None:
    """The same CONDITIONING as positive and negative: roles come from the list, not from the value."""
    same = models.text(POSITIVE)
    calls = run(plain(patched, same, same))
    prompt = models.Features.random()
    with oracles.package(models.diffusers_unet("SD15", CHANNELS), weights(), 1.0) as predict:
        for call in calls:
            given = torch.cat(
                [prompt.features("pooled") if r == 0 else prompt.unconditional("pooled") for r in call["roles"]]
            )
            assert figures.relative(call["output"], predict(call["x"], call["t"], call["context"], given)) <= BAR


@pytest.mark.parametrize("nested", [False, True])
def test_dual_cfg(patched: Any, nested: bool) -> None:
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    made = Guider_DualCFG(patched)
    made.set_conds(models.text(POSITIVE), models.text(OTHER), models.text(NEGATIVE))
    made.set_cfg(5.0, 3.0, nested=nested)
    assert set(hold_to_reference(run(made), {POSITIVE, OTHER})) == {POSITIVE, OTHER, NEGATIVE}


def test_perp_neg(patched: Any) -> None:
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    made = Guider_PerpNeg(patched)
    made.set_conds(models.text(POSITIVE), models.text(NEGATIVE), models.text(EMPTY))
    made.set_cfg(4.0, 1.0)
    assert set(hold_to_reference(run(made), {POSITIVE})) == {POSITIVE, NEGATIVE, EMPTY}


def test_perp_neg_that_converts_conditionings_of_its_own(patched: Any) -> None:
    from comfy_extras.nodes_perpneg import PerpNeg

    model = PerpNeg.execute(patched, models.text(EMPTY), 1.0)[0]
    calls = run(plain(model, models.text(POSITIVE), models.text(NEGATIVE)))
    assert set(hold_to_reference(calls, {POSITIVE})) == {POSITIVE, NEGATIVE, EMPTY}


def test_a_guider_that_keeps_its_negatives_for_itself() -> None:
    """DualModelGuider's negative list is announced to no wrapper around the sampler, and has areas of its own."""
    from comfy_extras.nodes_custom_sampler import Guider_DualModel

    upper = torch.zeros(1, 64, 64)
    upper[:, :32] = 1
    model, prompt = models.comfy_model("SD15", CHANNELS), models.Features.random()
    negative = models.text(NEGATIVE, area=(8, 16, 0, 0)) + models.text(OTHER, area=(8, 16, 8, 0))
    outputs: list[dict[int, torch.Tensor]] = []
    for on in (models.apply(model, weights(), prompt, mask=upper), models.apply(model, weights(), prompt), model):
        made = Guider_DualModel(on, on)
        made.set_conds(models.text(POSITIVE), negative)
        made.set_cfg(4.0)
        calls = run(made, steps=1)
        known = {seed: models.text(seed)[0][0] for seed in (POSITIVE, OTHER, NEGATIVE)}
        outputs.append({
            seed: output for call in calls for context, output in zip(call["context"], call["output"])
            for seed, states in known.items() if torch.equal(states[0], context)
        })  # fmt: skip
    masked, full, none = outputs
    assert all(masked[seed].shape[-2:] == (8, 16) for seed in (NEGATIVE, OTHER))
    assert figures.relative(masked[NEGATIVE], full[NEGATIVE]) <= BAR < figures.relative(full[NEGATIVE], none[NEGATIVE])
    assert torch.equal(masked[OTHER], none[OTHER])
    assert figures.relative(full[OTHER], none[OTHER]) > 1e-3


@pytest.mark.slow
def test_sag(patched: Any) -> None:
    """SAG passes the unconditional list as the sampler's first."""
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    model = SelfAttentionGuidance.execute(patched, 0.5, 2.0)[0]
    calls = run(plain(model, models.text(POSITIVE), models.text(NEGATIVE)), size=(64, 64))
    assert any(call["roles"] == [0] for call in calls)
    hold_to_reference(calls, {POSITIVE})


def test_pag(patched: Any) -> None:
    """PAG calls the conditional once more with perturbed self-attention: same image tokens as the conditional."""
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    model = PerturbedAttentionGuidance.execute(patched, 3.0)[0]
    calls = run(plain(model, models.text(POSITIVE), models.text(NEGATIVE)))
    perturbed = [call for call in calls if len(call["roles"]) == 1]
    (first, *_) = (call for call in calls if len(call["roles"]) == 2)
    assert len(perturbed) == 2
    for call in perturbed:
        k, v, *_ = call["options"]["image_prompt_kv"][0].layers[1]
        both_k, both_v, *_ = first["options"]["image_prompt_kv"][0].layers[1]
        conditional = first["roles"].index(0)
        assert torch.equal(k[0], both_k[conditional])
        assert torch.equal(v[0], both_v[conditional])
    hold_to_reference([call for call in calls if len(call["roles"]) == 2], {POSITIVE})


def test_batch(patched: Any) -> None:
    calls = run(plain(patched, models.text(POSITIVE), models.text(NEGATIVE)), batch=3)
    assert {len(call["x"]) for call in calls} == {6}
    hold_to_reference(calls, {POSITIVE})


@pytest.mark.parametrize("size", [(13, 37), (8, 96), (17, 9)])
def test_odd_sizes(patched: Any, size: tuple[int, int]) -> None:
    hold_to_reference(run(plain(patched, models.text(POSITIVE), models.text(NEGATIVE)), size=size), {POSITIVE})


def test_one_reference_for_each_latent_by_context_window() -> None:
    """A window of a longer batch gets the references of its own latents."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    pictures = models.Features.random(pictures=6)
    model = models.comfy_model("SD15", CHANNELS)
    patched = models.apply(model, weights(), pictures, combine="one for each latent")
    windowed = ContextWindowsManualNode.execute(
        patched, context_length=4, context_overlap=2, context_schedule="standard_static", context_stride=1,
        closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False, cond_retain_index_list="",
        split_conds_to_windows=False,
    )[0]  # fmt: skip
    calls = run(plain(windowed, models.text(POSITIVE), models.text(NEGATIVE)), batch=6, steps=1)
    assert len(calls) > 1
    with oracles.package(models.diffusers_unet("SD15", CHANNELS), weights(), 1.0) as predict:
        for call in calls:
            window = call["options"]["context_window"]
            anchor = getattr(window, "causal_anchor_index", None)  # the latent before the window, which ComfyUI may add
            rows = [] if anchor is None else [anchor]
            rows += window.index_list
            given = torch.cat(
                [pictures.features("pooled")[rows] if r == 0 else torch.zeros(len(rows), 1024) for r in call["roles"]]
            )
            error = figures.relative(call["output"], predict(call["x"], call["t"], call["context"], given))
            print(f"\nlatents {rows}: {error:.1e}")
            assert error <= BAR
