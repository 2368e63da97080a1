"""The nodes in ComfyUI's own model code against two independent implementations, on the same random weights."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from tests.support import figures, host, models, oracles

pytestmark = [pytest.mark.comfy, pytest.mark.slow, pytest.mark.large]

BAR = 1e-5
SEED = {"base": 1, "plus": 4}


@functools.cache
def weights(family: str, base: str = "SD15", channels: int = 320, seed: int | None = None) -> dict[str, torch.Tensor]:
    return models.adapter_weights(family, models.comfy_model(base, channels), seed or SEED[family])


def features(prompt: models.Features, family: str, roles: list[int]) -> torch.Tensor:
    """The oracle's features of a batch by roles; 0 is the positive, 1 the negative of plain guidance."""
    name = "pooled" if family == "base" else "penultimate"
    return torch.cat([prompt.features(name) if role == 0 else prompt.unconditional(name) for role in roles])


def one_step(
    model: Any, positive: Any, negative: Any, size: tuple[int, int] = (32, 32), cfg: float = 7.5
) -> dict[str, Any]:
    with models.Calls(model) as calls:
        models.sample(model, positive, negative, cfg=cfg, steps=1, size=size)
    (call,) = calls
    return call


def added(call: dict[str, Any], base: str) -> Any:
    if base != "SDXL":
        return None
    # ComfyUI's vector: the pooled text, then six sizes of 256 each, which diffusers embeds itself
    y = call["y"]
    sizes = torch.tensor([[256.0, 256, 0, 0, 256, 256]]).expand(len(y), -1)
    return {"text_embeds": y[:, :1280], "time_ids": sizes}


def compare(family: str, scale: float, positive: Any, base: str = "SD15", channels: int = 320) -> None:
    model, unet = models.comfy_model(base, channels), models.diffusers_unet(base, channels)
    context = 768 if base == "SD15" else 2048
    negative = models.text(0, context, pooled=1280 if base == "SDXL" else None)
    prompt = models.Features.random()
    plain = one_step(model, positive, negative)
    call = one_step(models.apply(model, weights(family, base, channels), prompt, scale), positive, negative)
    effect = figures.relative(call["output"], plain["output"])
    inputs = (call["x"], call["t"], call["context"])
    given = features(prompt, family, call["roles"])
    with oracles.package(unet, weights(family, base, channels), scale) as predict:
        by_package = figures.relative(call["output"], predict(*inputs, given, added(call, base)))
    with oracles.diffusers_loader(unet, [weights(family, base, channels)], [scale]) as predict:
        by_diffusers = figures.relative(call["output"], predict(*inputs, [given[:, None]], added(call, base)))
    print(
        f"\n{base} {family} scale {scale}: package {by_package:.1e}, diffusers {by_diffusers:.1e}, effect {effect:.1e}"
    )
    assert effect > 1e-2
    assert by_package <= BAR
    assert by_diffusers <= BAR


@pytest.mark.parametrize("family", ["base", "plus"])
@pytest.mark.parametrize(
    ("scale", "seed"), [(0.3, 5), (1.0, 5), (1.5, 5), (1.0, 0)], ids=["0.3", "1", "1.5", "no text"]
)
def test_sd15_full_size(family: str, scale: float, seed: int) -> None:
    compare(family, scale, models.text(seed))


@pytest.mark.parametrize("family", ["base", "plus"])
def test_sdxl_all_seventy_layers(family: str) -> None:
    compare(family, 1.0, models.text(5, 2048, pooled=1280), "SDXL", 64)


def test_two_adapters_at_once() -> None:
    model, unet = models.comfy_model(), models.diffusers_unet()
    first, second = models.Features.random(seed=6), models.Features.random(seed=7)
    patched = models.apply(models.apply(model, weights("base"), first, 0.8), weights("plus"), second, 0.5)
    call = one_step(patched, models.text(5), models.text(0))
    given = [features(first, "base", call["roles"]), features(second, "plus", call["roles"])]
    with oracles.diffusers_loader(unet, [weights("base"), weights("plus")], [0.8, 0.5]) as predict:
        error = figures.relative(
            call["output"], predict(call["x"], call["t"], call["context"], [g[:, None] for g in given])
        )
    print(f"\ntwo adapters: diffusers {error:.1e}")
    assert error <= BAR


@pytest.mark.parametrize(
    ("preset", "scales"),
    [
        ("style", {"up": {"block_0": [0.0, 1.0, 0.0]}}),
        ("composition", {"down": {"block_2": [0.0, 1.0]}}),
        ("style + composition", {"down": {"block_2": [0.0, 1.0]}, "up": {"block_0": [0.0, 1.0, 0.0]}}),
    ],
)
def test_sdxl_presets_are_the_layers_diffusers_documents(preset: str, scales: Any) -> None:
    model, unet = models.comfy_model("SDXL", 64), models.diffusers_unet("SDXL", 64)
    prompt = models.Features.random()
    patched = models.apply(model, weights("base", "SDXL", 64), prompt, layers=preset)
    call = one_step(patched, models.text(5, 2048, pooled=1280), models.text(0, 2048, pooled=1280))
    given = features(prompt, "base", call["roles"])
    with oracles.diffusers_loader(unet, [weights("base", "SDXL", 64)], [scales]) as predict:
        error = figures.relative(
            call["output"], predict(call["x"], call["t"], call["context"], [given[:, None]], added(call, "SDXL"))
        )
    print(f"\nSDXL {preset}: diffusers {error:.1e}")
    assert error <= BAR


def test_with_a_controlnet() -> None:
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    torch.manual_seed(8)
    config = {
        key: value
        for key, value in models.UNETS["SD15"].items()
        if key not in ("out_channels", "transformer_depth_output")
    }
    net = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.manual_cast, device="cpu")
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.02)
    control = comfy.controlnet.ControlNet(net.eval().requires_grad_(False), load_device=torch.device("cpu"))
    control.set_cond_hint(torch.rand(1, 3, 256, 256), 0.7)
    positive, negative = (
        [[states, extra | {"control": control, "control_apply_to_uncond": False}]]
        for ((states, extra),) in (models.text(5), models.text(0))
    )
    model, unet, prompt = models.comfy_model(), models.diffusers_unet(), models.Features.random()
    patched = models.apply(model, weights("base"), prompt)
    seen = {}

    def keep(_: Any, args: Any, kwargs: Any) -> None:
        seen.update({key: list(value) for key, value in kwargs["control"].items()})  # the UNet pops them

    handle = model.model.diffusion_model.register_forward_pre_hook(keep, with_kwargs=True)
    call = one_step(patched, positive, negative)
    handle.remove()
    given = features(prompt, "base", call["roles"])
    residuals = {
        "down_block_additional_residuals": tuple(seen["output"]),
        "mid_block_additional_residual": seen["middle"][0],
    }
    with oracles.package(unet, weights("base"), 1.0) as predict:
        error = figures.relative(call["output"], predict(call["x"], call["t"], call["context"], given, **residuals))
        alone = figures.relative(predict(call["x"], call["t"], call["context"], given), call["output"])
    print(f"\nwith a ControlNet's residuals: package {error:.1e}, the residuals' effect {alone:.1e}")
    assert error <= BAR < alone


def test_ddim_run() -> None:
    """Ten DDIM steps with guidance 7.5: final latents. ComfyUI starts from noise scaled to its largest sigma."""
    model, unet, prompt = models.comfy_model(), models.diffusers_unet(), models.Features.random()
    patched = models.apply(model, weights("base"), prompt)
    positive, negative = models.text(5), models.text(0)
    ours = models.sample(patched, positive, negative, steps=10, size=(32, 32), sampler="ddim", scheduler="ddim_uniform")

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip
    scheduler.set_timesteps(10)
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    alpha = scheduler.alphas_cumprod[scheduler.timesteps[0]]
    sigma = ((1 - alpha) / alpha).sqrt()
    latents = noise * sigma / (1 + sigma**2).sqrt()
    context = torch.cat([negative[0][0], positive[0][0]])
    given = features(prompt, "base", [1, 0])
    with oracles.package(unet, weights("base"), 1.0) as predict:
        for t in scheduler.timesteps:
            uncond, cond = predict(latents.repeat(2, 1, 1, 1), t, context, given).chunk(2)
            latents = scheduler.step(uncond + 7.5 * (cond - uncond), t, latents).prev_sample
    ours = ours * 0.18215  # ComfyUI returns latents before the scale factor
    error = figures.relative(ours, latents)
    print(f"\nDDIM 10 steps, guidance 7.5: {error:.1e}")
    assert error <= 1e-4


@pytest.mark.parametrize("family", ["base", "plus"])
def test_from_pixels(family: str) -> None:
    """The whole way from a picture, cut, encode, project, against transformers' encoder and the package."""
    import numpy as np
    from PIL import Image
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(9)
    config = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=3, num_attention_heads=16, patch_size=14,
        projection_dim=1024, hidden_act="gelu",
    )  # fmt: skip
    theirs = CLIPVisionModelWithProjection(config).half().float().eval().requires_grad_(False)
    encoder = host.part("nodes.encoders").build_encoder(dict(theirs.state_dict()))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (301, 420, 3), dtype=np.uint8))
    prompt = host.part("nodes.prompts.pictures").encode(
        encoder, torch.from_numpy(np.array(picture))[None] / 255, "centre"
    )
    with torch.inference_mode():
        pixels = CLIPImageProcessorPil(resample=Image.Resampling.BICUBIC)(picture, return_tensors="pt").pixel_values
        outs = [theirs(p, output_hidden_states=True) for p in (pixels, torch.zeros_like(pixels))]
        name = "pooled" if family == "base" else "penultimate"
        reference = outs[0].image_embeds if family == "base" else outs[0].hidden_states[-2]
        nothing = torch.zeros_like(reference) if family == "base" else outs[1].hidden_states[-2]
        seen = figures.relative(prompt.features(name), reference)
        unseen = figures.relative(prompt.zero_states(), nothing) if family == "plus" else 0.0
        projection = oracles.package_projection(weights(family))
        adapter = models.loaded_adapter(weights(family))
        tokens = figures.relative(
            adapter.model.image_tokens(models.core.Given(prompt.features(name))), projection(reference)
        )
    print(f"\nfrom pixels, {family}: features {seen:.1e}, unconditional {unseen:.1e}, image tokens {tokens:.1e}")
    assert max(seen, unseen, tokens) <= BAR
