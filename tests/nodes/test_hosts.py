"""The door for kinds of models, proved by a second one: a transformer whose adapter depends on the step.

The nodes' own run and apply, unchanged, against every block written out as a formula.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import figures, host, joint_host, models

pytestmark = pytest.mark.comfy
BAR = 1e-5
Curve, Influence = models.core.Curve, models.core.Influence
SIZE = (10, 6)  # latent pixels
GRID = (5, 3)


@pytest.fixture(autouse=True)
def second_host(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = host.part("nodes.hosts")
    monkeypatch.setattr(hosts, "HOSTS", (*hosts.HOSTS, joint_host.Joint()))


def prompt(seed: int = 2) -> Any:
    return models.Features.random(seed=seed, tokens=1, pooled=joint_host.FEATURES)


def text(seed: int) -> Any:
    return models.text(seed, joint_host.TEXT, tokens=7, pooled=32)


def calls_of(model: Any, steps: int = 3, cfg: float = 4.0) -> list[dict[str, Any]]:
    noise = torch.randn(1, 16, *SIZE, generator=torch.Generator().manual_seed(3))
    with models.Calls(model) as calls, torch.inference_mode():
        models.comfy.sample.sample(
            model, noise, steps, cfg, "euler", "simple", text(5), text(6), torch.zeros_like(noise), seed=3,
            disable_pbar=True,
        )  # fmt: skip
    return calls


def by_formula(call: dict[str, Any], given: list[tuple[Any, Any, Any]], **packs: float) -> Tensor:
    """The prediction of a call, every block written out. given: adapter, prompt, factor [B, N or 1, 1] of each."""
    unet = joint_host.joint_model().model.diffusion_model
    images: list[list[Any]] = [[], []]
    for adapter, features, factor in given:
        picture = features.features("pooled")
        roles = [picture if role == 0 else torch.zeros_like(picture) for role in call["roles"]]
        for index, pair in enumerate(adapter.model.keys_values(torch.cat(roles), call["t"][:1])):
            images[index].append((*pair, factor))
    try:
        for block, of_block in zip(unet.joint_blocks, images):
            block.forward = joint_host.block_by_formula(block, of_block, **packs)
        with torch.inference_mode():
            return unet(call["x"], call["t"], context=call["context"], y=call["y"])
    finally:
        for block in unet.joint_blocks:
            del block.forward


def held(calls: list[dict[str, Any]], given: Any, **packs: float) -> None:
    """Every call is the formula's, has an effect, and would differ with its roles exchanged."""
    worst, effect, exchanged = 0.0, 9.0, 9.0
    for call in calls:
        expected = by_formula(call, given, **packs)
        worst = max(worst, figures.relative(call["output"], expected))
        effect = min(effect, figures.relative(by_formula(call, [], **packs), expected))
        wrong = by_formula(call | {"roles": [1 - role for role in call["roles"]]}, given, **packs)
        exchanged = min(exchanged, figures.relative(wrong, expected))
    print(
        f"\n{len(calls)} calls: {worst:.1e} of the formula; effect {effect:.1e}, with exchanged roles {exchanged:.1e}"
    )
    assert worst <= BAR
    assert effect > 1e-2 and exchanged > 1e-3


def test_a_prompt_whose_tokens_depend_on_the_step() -> None:
    model, adapter = joint_host.joint_model(), joint_host.timed_adapter()
    patched = models.apply(model, adapter, prompt(), 0.8)
    calls = calls_of(patched)
    assert {tuple(call["roles"]) for call in calls} == {(1, 0)} and len({call["t"][0].item() for call in calls}) == 3
    held(calls, [(adapter, prompt(), 0.8)])
    first, *_ = calls
    late = by_formula(first | {"t": calls[-1]["t"]}, [(adapter, prompt(), 0.8)])
    assert figures.relative(late, by_formula(first, [(adapter, prompt(), 0.8)])) > 1e-2  # the step matters


def test_two_prompts_with_mask_curve_and_roles() -> None:
    model, one, two = joint_host.joint_model(), joint_host.timed_adapter(), joint_host.timed_adapter()
    mask = torch.rand(1, 20, 12, generator=torch.Generator().manual_seed(4))
    curve = Curve(((0.0, 0.5), (1.0, 0.5)))
    patched = models.apply(model, one, prompt(), influence=Influence(0.9, mask=mask, curve=curve))
    patched = models.apply(patched, two, prompt(7), influence=Influence(0.7, roles=(1.0, 0.5)))
    where = 0.9 * 0.5 * joint_host.mask_on(GRID, mask, SIZE)
    shares = torch.tensor([0.35, 0.7]).reshape(2, 1, 1)  # unconditional first
    held(calls_of(patched), [(one, prompt(), where), (two, prompt(7), shares)])


def test_a_range_leaves_the_base_alone_outside() -> None:
    model, adapter = joint_host.joint_model(), joint_host.timed_adapter()
    patched = models.apply(model, adapter, prompt(), start_percent=0.5)
    base, calls = calls_of(model, steps=4), calls_of(patched, steps=4)
    assert [torch.equal(a["output"], b["output"]) for a, b in zip(calls, base)][:2] == [True, True]
    held(calls[2:], [(adapter, prompt(), 1.0)])


def test_what_others_put_there_stays_and_nothing_stays_of_ours() -> None:
    """Another pack's block and attention, set before and after ours; the model before is as it was."""
    model, adapter = joint_host.joint_model(), joint_host.timed_adapter()

    def theirs(on: Any) -> Any:
        clone = on.clone()
        clone.set_model_patch_replace(their_block, "dit", "double_block", 0)
        clone.set_model_patch_replace(their_block, "dit", "double_block", 1)
        clone.model_options["transformer_options"]["optimized_attention_override"] = their_attention
        return clone

    def their_block(args: Any, extra: Any) -> Any:
        out = extra["original_block"](args)
        return out | {"img": 1.1 * out["img"]}

    def their_attention(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        return 0.9 * func(*args, **kwargs)

    base, other = calls_of(model), calls_of(theirs(model))
    for patched in (models.apply(theirs(model), adapter, prompt()), theirs(models.apply(model, adapter, prompt()))):
        held(calls_of(patched), [(adapter, prompt(), 1.0)], own=0.9, after=1.1)
    for before, after in ((base, calls_of(model)), (other, calls_of(theirs(model)))):
        assert all(torch.equal(a["output"], b["output"]) for a, b in zip(before, after, strict=True))
        assert "image_prompt_kv" not in after[0]["options"]


def test_the_adapter_is_counted_beside_the_base() -> None:
    """Its weights are in use in every step, so the memory manager has to know of them."""
    model, adapter = joint_host.joint_model(), joint_host.timed_adapter()
    patched = models.apply(models.apply(model, adapter, prompt()), adapter, prompt(3))
    assert [found.model for found in patched.get_additional_models()] == [adapter.model] * 2
    assert model.get_additional_models() == []


def test_the_objects_of_a_run_are_the_same_in_all_steps() -> None:
    model, adapter = joint_host.joint_model(), joint_host.timed_adapter()
    calls = calls_of(models.apply(model, adapter, prompt()))
    blocks = [call["options"]["patches_replace"]["dit"] for call in calls]
    assert all(block[key] is blocks[0][key] for block in blocks for key in blocks[0]) and len(blocks[0]) == 2


def test_a_model_of_no_known_kind_and_an_adapter_of_another() -> None:
    adapter = joint_host.timed_adapter()
    with pytest.raises(
        ValueError, match=r"this model \(Flux\) has no cross-attention layers to put an image prompt in"
    ):
        models.apply(models.transformer(), adapter, prompt())
    unet = models.comfy_model("SD15", 32)
    with pytest.raises(ValueError, match="has other blocks than the model"):
        models.apply(joint_host.joint_model(), models.loaded_adapter(models.adapter_weights("base", unet)), prompt())
