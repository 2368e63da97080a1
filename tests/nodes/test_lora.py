"""FaceID's LoRA on the base model: equal to merged matrices, never twice, and gone without a trace."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import figures, host, models, oracles, published

pytestmark = pytest.mark.comfy

BAR = 1e-5
lora, hosts = host.part("nodes.hosts.lora"), host.part("nodes.hosts")
# Narrow layers of true number; the rank is the published one.
BASES = {"SD15": 32, "SDXL": 64}
EACH = ("SD15", pytest.param("SDXL", marks=pytest.mark.slow))


def model(base: str) -> Any:
    return models.comfy_model(base, BASES[base])


@functools.cache
def weights(base: str, seed: int = 0) -> dict[str, Tensor]:
    """A FaceID adapter with its LoRA, strong enough to be seen."""
    _, table = hosts.host_of(model(base))
    unet = model(base).model.diffusion_model
    widths = {layer.index: unet.get_submodule(layer.comfyui).to_k.out_features for layer in table}
    context = models.CONTEXT[base]
    with torch.device("meta"):
        projection = oracles.IdentityProjection(context, 512, 4)
    shapes = published.adapter(projection, context, widths) | published.lora(context, widths)
    return {key: value * 3 if "_lora." in key else value for key, value in published.filled(shapes, seed=seed).items()}


@functools.cache
def adapter(base: str) -> Any:
    return models.loaded_adapter(weights(base), "faceid.bin")


def step(patched: Any, base: str) -> dict[str, Any]:
    context, pooled = models.CONTEXT[base], models.POOLED.get(base)
    with models.Calls(patched) as calls:
        models.sample(patched, models.text(5, context, pooled=pooled), models.text(0, context, pooled=pooled), steps=1,
                      size=(8, 8))  # fmt: skip
    (call,) = calls
    return call


def with_lora(base: str, strength: float, on: Any = None) -> Any:
    on = on or model(base)
    return lora.with_lora(on, adapter(base), strength, hosts.host_of(on)[1])


def by_hand(base: str, strength: float, call: dict[str, Any]) -> Tensor:
    """The prediction of diffusers' UNet with the matrices merged by hand."""
    unet = models.diffusers_unet(base, BASES[base])
    added = None
    if base == "SDXL":
        sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(len(call["y"]), -1)
        added = {"text_embeds": call["y"][:, :1280], "time_ids": sizes}
    with oracles.merged(unet, weights(base), strength), torch.inference_mode():
        return unet(call["x"], call["t"], encoder_hidden_states=call["context"], added_cond_kwargs=added).sample


@pytest.mark.parametrize("strength", [1.0, 0.4, -0.5])
@pytest.mark.parametrize("base", EACH)
def test_equals_merging_by_hand(base: str, strength: float) -> None:
    plain = step(model(base), base)
    call = step(with_lora(base, strength), base)
    figures.show(f"{base}, LoRA at {strength}", call["output"], by_hand(base, strength, call), BAR)
    effect = figures.relative(call["output"], plain["output"])
    print(f"the LoRA's effect {effect:.1e}")
    assert effect > 1e-2


@pytest.mark.parametrize("base", EACH)
def test_every_processor_is_changed(base: str) -> None:
    """Even numbers and odd ones: four matrices of each attention layer of the model, and nothing else."""
    keys = {key for key, held in with_lora(base, 1.0).patches.items() if held}
    attention = {
        f"diffusion_model.{name}.{part}.weight"
        for name, module in model(base).model.diffusion_model.named_modules()
        if name.endswith((".attn1", ".attn2"))
        for part in ("to_q", "to_k", "to_v", "to_out.0")
    }
    print(f"{base}: {len(keys)} matrices")
    assert keys == attention


@pytest.mark.parametrize("base", EACH)
def test_unloads_without_a_trace(base: str) -> None:
    before = step(model(base), base)["output"]
    weights_before = {key: value.clone() for key, value in model(base).model.state_dict().items() if "attn" in key}
    changed = step(models.apply(model(base), adapter(base), models.Features.random()), base)["output"]
    assert not torch.equal(changed, before)
    assert not any(model(base).patches.values())
    assert torch.equal(step(model(base), base)["output"], before)
    assert all(torch.equal(value, model(base).model.state_dict()[key]) for key, value in weights_before.items())


def test_strength_zero_leaves_it_out() -> None:
    assert with_lora("SD15", 0.0) is model("SD15")
    patched = models.apply(model("SD15"), adapter("SD15"), models.Features.random(), lora_strength=0.0)
    assert not any(patched.patches.values())


def test_weight_zero_is_the_model_itself() -> None:
    assert models.apply(model("SD15"), adapter("SD15"), models.Features.random(), 0.0) is model("SD15")


def separate_file(base: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The LoRA of the adapter as a file of its own, with the names that LoRA loaders know."""
    tensors = {}
    names = host.part("ipadapter_core").attention_names(hosts.host_of(model(base))[1])
    unet = models.diffusers_unet(base, BASES[base])
    for index, name in enumerate(unet.attn_processors):
        assert names[index].endswith(name.split(".")[-2])  # attn1 or attn2, in both orders
        for part in ("to_q", "to_k", "to_v", "to_out"):
            ours = f"ip_adapter.{index}.{part}_lora"
            place = f"{name.removesuffix('.processor')}.{part}{'_0' if part == 'to_out' else ''}"
            kohya = f"lora_unet_{place.replace('.', '_')}"
            tensors[f"{kohya}.lora_up.weight"] = weights(base)[f"{ours}.up.weight"].to(dtype)
            tensors[f"{kohya}.lora_down.weight"] = weights(base)[f"{ours}.down.weight"].to(dtype)
            tensors[f"{kohya}.alpha"] = torch.tensor(128.0)
    return tensors


@pytest.mark.parametrize("base", EACH)
def test_separate_file_works_as_well(base: str) -> None:
    """ComfyUI's own loader puts it on; the adapter then adds nothing, whatever its strength says."""
    import comfy.sd

    loaded, _ = comfy.sd.load_lora_for_models(model(base), None, separate_file(base), 1.0, 0.0)
    assert {len(held) for held in loaded.patches.values()} == {1}
    call = step(loaded, base)
    figures.show(f"{base}, separate file", call["output"], by_hand(base, 1.0, call), BAR)
    both = models.apply(loaded, adapter(base), models.Features.random())
    assert {len(held) for held in both.patches.values()} == {1}
    first = models.apply(model(base), adapter(base), models.Features.random())
    figures.show(f"{base}, the two ways", step(both, base)["output"], step(first, base)["output"], BAR)


def test_separate_file_is_known_in_any_precision_and_strength() -> None:
    import comfy.sd

    for dtype, strength in ((torch.bfloat16, 1.0), (torch.float16, 0.6), (torch.float32, -1.0)):
        loaded, _ = comfy.sd.load_lora_for_models(model("SD15"), None, separate_file("SD15", dtype), strength, 0.0)
        assert with_lora("SD15", 1.0, loaded) is loaded
    off, _ = comfy.sd.load_lora_for_models(model("SD15"), None, separate_file("SD15"), 0.0, 0.0)
    assert with_lora("SD15", 1.0, off) is not off


def test_two_faces_share_one_lora() -> None:
    once = models.apply(model("SD15"), adapter("SD15"), models.Features.random())
    twice = models.apply(once, adapter("SD15"), models.Features.random(seed=8))
    assert {len(held) for held in twice.patches.values()} == {1}


def test_another_lora_is_no_hindrance() -> None:
    import comfy.sd

    other = {
        key: torch.randn_like(value) if "lora_up" in key else value for key, value in separate_file("SD15").items()
    }
    loaded, _ = comfy.sd.load_lora_for_models(model("SD15"), None, other, 1.0, 0.0)
    assert {len(held) for held in with_lora("SD15", 1.0, loaded).patches.values()} == {2}


def test_lora_of_other_widths_is_refused() -> None:
    wrong = dict(weights("SD15"))
    wrong["ip_adapter.0.to_q_lora.up.weight"] = torch.zeros(48, 128)
    with pytest.raises(ValueError, match=r"48 x 32 matrix, but the model's .* is 32 x 32") as error:
        models.apply(model("SD15"), models.loaded_adapter(wrong), models.Features.random())
    print(error.value)
    assert not any(model("SD15").patches.values())
