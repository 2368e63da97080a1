"""Image prompts beside other things that change a model: LoRA, other packs' patches, compilation, precision."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.support import figures, models

pytestmark = pytest.mark.comfy


@functools.cache
def adapter() -> Any:
    return models.loaded_adapter(models.adapter_weights("base", models.comfy_model("SD15", 32)))


def prediction(model: Any, **kwargs: Any) -> torch.Tensor:
    with models.Calls(model) as calls:
        models.sample(model, models.text(5), models.text(0), steps=1, **kwargs)
    return calls[0]["output"]


def with_lora(model: Any) -> Any:
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"
    weight = model.model.get_submodule(key.removesuffix(".weight")).weight
    change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    clone = model.clone()
    assert clone.add_patches({key: ("diff", (change,))}, 0.5)
    return clone


def test_lora_in_either_order() -> None:
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    after = prediction(with_lora(models.apply(model, adapter(), prompt)))
    before = prediction(models.apply(with_lora(model), adapter(), prompt))
    alone = prediction(models.apply(model, adapter(), prompt))
    assert torch.equal(after, before)
    assert figures.relative(alone, after) > 1e-3


class ForeignPatch:
    """What IPAdapter Plus, InstantID and PuLID put on a layer: attention, then additions that `add` extends."""

    def __init__(self, callback: Any, **kwargs: Any) -> None:
        self.additions = [(callback, kwargs)]

    def add(self, callback: Any, **kwargs: Any) -> None:
        self.additions.append((callback, kwargs))

    def __call__(self, q: Any, k: Any, v: Any, extra_options: Any) -> Any:
        from comfy.ldm.modules.attention import optimized_attention

        out = optimized_attention(q, k, v, extra_options["n_heads"])
        for callback, kwargs in self.additions:
            out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out


def foreign_addition(out: Any, q: Any, k: Any, v: Any, extra_options: Any, strength: float, **_: Any) -> Any:
    return strength * q


def with_foreign_patch(model: Any, strength: float = 0.3, sigma_end: float = 0.0) -> Any:
    """As those packs do it: on a clone, `add` where a layer is held, an object of their own where it is not."""
    clone = model.clone()
    options = clone.model_options["transformer_options"] = clone.model_options["transformer_options"].copy()
    replace = options["patches_replace"] = options.get("patches_replace", {}).copy()
    attn2 = replace["attn2"] = replace.get("attn2", {}).copy()
    kwargs = {"strength": strength, "sigma_start": 1e9, "sigma_end": sigma_end}
    for key in (("input", 1), ("output", 5), ("middle", 0)):
        if key in attn2:
            attn2[key].add(foreign_addition, **kwargs)
        else:
            attn2[key] = ForeignPatch(foreign_addition, **kwargs)
    return clone


def test_other_packs_before_and_after() -> None:
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    ours = models.apply(model, adapter(), prompt)
    before = prediction(ours)
    theirs_after = prediction(with_foreign_patch(ours))
    theirs_before = prediction(models.apply(with_foreign_patch(model), adapter(), prompt))
    error, effect = figures.relative(theirs_after, theirs_before), figures.relative(theirs_after, before)
    print(f"\ntheirs after ours against ours after theirs: {error:.1e}; their effect {effect:.1e}")
    assert error <= 1e-5 < effect
    assert torch.equal(prediction(ours), before), "their addition leaked into the model that it was added after"
    sandwiched = prediction(models.apply(with_foreign_patch(ours), adapter(), prompt, 0.5))
    assert figures.relative(sandwiched, theirs_after) > 1e-3


def test_other_packs_keep_their_range() -> None:
    """Their additions come with sigmas; outside of them nothing is added."""
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    ours = models.apply(model, adapter(), prompt)
    assert torch.equal(prediction(with_foreign_patch(ours, sigma_end=1e8)), prediction(ours))


def test_a_patch_under_the_longer_key() -> None:
    """(block, number, depth) shadows (block, number): ours wraps the one that would have run."""
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    longer = model.clone()
    foreign = ForeignPatch(foreign_addition, strength=0.3)
    longer.set_model_attn2_replace(foreign, "input", 1, 0)
    both = prediction(models.apply(longer, adapter(), prompt))
    assert figures.relative(both, prediction(longer)) > 1e-3
    assert figures.relative(both, prediction(models.apply(model, adapter(), prompt))) > 1e-3


def compiling(model: Any) -> tuple[Any, list[Any]]:
    """A clone that is compiled by ComfyUI's wrapper, and the graphs as they are made."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend=backend)
    return compiled, graphs


@pytest.mark.slow
def test_a_compiled_model_is_compiled_once() -> None:
    """Another run, another picture, another weight: no new graph. With a curve one more, whatever it is in a step."""
    model = models.comfy_model("SD15", 32)
    compiled, graphs = compiling(model)
    counts, errors = [], []
    curves = [models.core.Curve(((0, first), (1, last))) for first, last in ((1, 1), (1, 1), (1, 0.2), (0.3, 0.9))]
    for seed, weight, curve in zip((1, 2, 2, 1), (1.0, 1.0, 0.6, 0.6), curves, strict=True):
        prompt = models.Features.random(seed=seed)
        influence = models.core.Influence(weight, curve=curve)
        patched, plain = (models.apply(on, adapter(), prompt, influence=influence) for on in (compiled, model))
        ours, eager = (models.sample(m, models.text(5), models.text(0), seed=seed) for m in (patched, plain))
        errors.append(figures.relative(ours, eager))
        counts.append(len(graphs))
    torch._dynamo.reset()
    print(f"\ngraphs after each run: {counts}; against the model as it is: {max(errors):.1e}")
    assert counts[0] > 0
    assert counts == [counts[0]] * 2 + [counts[2]] * 2
    assert counts[2] - counts[0] <= counts[0]
    assert max(errors) <= 1e-5


@pytest.mark.slow
def test_a_compiled_model_with_all_controls_is_compiled_once() -> None:
    """A mask, a curve, frames and a rescale: other numbers in them, and in the picture, compile nothing again."""
    model = models.comfy_model("SD15", 32)
    compiled, graphs = compiling(model)
    counts, errors = [], []
    for seed in (1, 2):
        influence = models.core.Influence(
            1 / seed, curve=models.core.Curve(((0, 1), (1, 0.2 * seed))), frames=(0.5, seed), rescale=0.4 * seed,
            mask=torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(seed)),
        )  # fmt: skip
        prompt = models.Features.random(seed=seed)
        patched, plain = (models.apply(on, adapter(), prompt, influence=influence) for on in (compiled, model))
        ours, eager = (
            models.sample(m, models.text(5), models.text(0), seed=seed, steps=2, batch=2) for m in (patched, plain)
        )
        errors.append(figures.relative(ours, eager))
        counts.append(len(graphs))
    torch._dynamo.reset()
    print(f"\ngraphs after each run: {counts}; against the model as it is: {max(errors):.1e}")
    assert counts[0] == counts[1] > 0
    assert max(errors) <= 1e-5


@pytest.mark.parametrize(
    ("weights", "compute", "bar"),
    [
        (torch.float16, torch.float32, 1e-2),
        (torch.bfloat16, torch.bfloat16, 5e-2),
        (torch.float16, torch.float16, 2e-2),
        (torch.float8_e4m3fn, torch.float32, 3e-1),
    ],
    ids=["fp16 in fp32", "bf16", "fp16", "fp8 in fp32"],
)
def test_precision_follows_the_base(weights: torch.dtype, compute: torch.dtype, bar: float) -> None:
    exact = models.comfy_model("SD15", 32)
    config = models.copy.deepcopy(models.UNETS["SD15"]) | {"model_channels": 32, "dtype": weights}
    model_config = models.comfy.supported_models.SD15(config)
    model_config.unet_config = config
    model_config.set_inference_dtype(weights, None if weights == compute else compute)
    low = model_config.get_model({}, device="cpu")
    state = {key: value.to(weights) for key, value in exact.model.diffusion_model.state_dict().items()}
    low.diffusion_model.load_state_dict(state, strict=True)
    low.diffusion_model.to(weights)
    device = torch.device("cpu")
    model = models.comfy.model_patcher.ModelPatcher(low, load_device=device, offload_device=device)
    prompt = models.Features.random()
    with models.Calls(model) as calls:
        models.sample(models.apply(model, adapter(), prompt), models.text(5), models.text(0), steps=1)
    (call,) = calls
    k, v, *_ = call["options"]["image_prompt_kv"][0].layers[1]
    error = figures.relative(call["output"].float(), prediction(models.apply(exact, adapter(), prompt)))
    print(f"\nbase in {weights}, computed in {compute}: K' in {k.dtype}, against fp32 {error:.1e}")
    assert k.dtype == v.dtype == compute
    assert torch.isfinite(call["output"]).all()
    assert error < bar
