"""A weight for each latent, and the rescale to the text's norm, held to every layer written out."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.nodes.test_windows import sampled, windowed
from tests.support import figures, formula, host, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
BAR = 1e-5
core = models.core
Curve, Influence = core.Curve, core.Influence
FRAMES = (0.3, 1.0, -0.5)


@functools.cache
def adapter(seed: int = 1) -> Any:
    return models.loaded_adapter(models.adapter_weights("base", models.comfy_model("SD15", 32), seed=seed))


@functools.cache
def blocks() -> dict[int, Any]:
    model = models.comfy_model("SD15", 32)
    return {site.index: core.comfyui_block(site)[:2] for site in host.part("nodes.hosts").host_of(model)[1]}


def calls_of(model: Any, batch: int, steps: int = 1) -> list[dict[str, Any]]:
    with models.Calls(model) as calls:
        models.sample(model, models.text(5), models.text(0), steps=steps, size=(8, 8), batch=batch)
    return calls


def weighted(k: Tensor, v: Tensor, weight: Tensor, scaling: str) -> tuple[Tensor, Tensor]:
    """K' and V' of a row at its weight, as the old pack's words say."""
    if scaling == "V only":
        return k, v * weight
    penalty = k.shape[-1] / 1280 if "penalty" in scaling else 1.0
    if "mean" in scaling:
        mean = v.mean(1, keepdim=True)
        return k * weight * penalty, v - mean + mean * weight * penalty
    return k * weight * penalty, v * weight * penalty


def expected(
    call: dict[str, Any], given: list[tuple[Any, Any, Tensor | float, Any, float]], scaling: str = "V only",
    masks: Tensor | None = None, only: Any = None,
) -> Tensor:  # fmt: skip
    """given: adapter, prompt, weight of each latent of a chunk, picture of each or None, rescale."""
    batch = len(call["x"]) // len(call["roles"])

    def add(index: int, q: Tensor, text: Tensor, heads: int, grid: tuple[int, int]) -> Tensor:
        out = text
        for loaded, prompt, weight, own, rescale in given:
            pooled = prompt.features("pooled")
            pictures = pooled[[0] * batch] if own is None else pooled[own]
            rows = torch.cat([pictures if role == 0 else torch.zeros_like(pictures) for role in call["roles"]])
            k, v = loaded.model.keys_values(loaded.model.image_tokens(core.Given(rows)), [index])[index]
            factor = torch.as_tensor(weight, dtype=torch.float32).expand(batch).repeat(len(call["roles"]))
            k, v = weighted(k, v, factor.reshape(-1, 1, 1), scaling)
            image = formula.softmax_attention(q, k, v, heads)
            if masks is not None:
                where = F.adaptive_avg_pool2d(masks[:, None], grid).flatten(1)[..., None]
                image = image * where.expand(batch, -1, 1).repeat(len(call["roles"]), 1, 1)
            out = out + image
            out = formula.rescaled(out, text, rescale) if rescale else out
        return out

    return formula.predicted(models.comfy_model("SD15", 32), call, blocks(), add)


@pytest.mark.parametrize("scaling", core.SCALINGS)
def test_a_weight_for_each_latent(scaling: str) -> None:
    """Five latents and three numbers, which are gone through again."""
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    influence = Influence(0.8, frames=FRAMES, scaling=scaling)
    (call,) = calls_of(models.apply(model, adapter(), prompt, influence=influence), 5)
    weights = 0.8 * torch.tensor([FRAMES[row % 3] for row in range(5)])
    figures.show(scaling, call["output"], expected(call, [(adapter(), prompt, weights, None, 0)], scaling), BAR)
    turned = expected(call, [(adapter(), prompt, weights.roll(1), None, 0)], scaling)
    assert figures.relative(call["output"], turned) > 1e-3


@pytest.mark.parametrize("scaling", ["V only", "K+V"])
def test_with_a_mask_a_curve_and_a_picture_for_each_latent(scaling: str) -> None:
    model, prompt = models.comfy_model("SD15", 32), models.Features.random(pictures=4)
    masks = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(4))
    half = Curve(((0.0, 0.5), (1.0, 0.5)))
    influence = Influence(0.8, frames=FRAMES, scaling=scaling, mask=masks, curve=half, rescale=0.4)
    patched = models.apply(model, adapter(), prompt, influence=influence, combine="one for each latent")
    (call,) = calls_of(patched, 4)
    weights = 0.8 * torch.tensor([FRAMES[row % 3] for row in range(4)])
    given = [(adapter(), prompt, weights, list(range(4)), 0.4)]
    figures.show("all in one", call["output"], expected(call, given, scaling, 0.5 * masks.repeat(2, 1, 1)), BAR)


@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_rescale_with_two_references(rescale: float) -> None:
    """Each is added and then moved to the text's norm, in their order."""
    model, first, second = models.comfy_model("SD15", 32), models.Features.random(), models.Features.random(seed=9)
    patched = models.apply(model, adapter(), first, influence=Influence(0.9, rescale=rescale))
    patched = models.apply(patched, adapter(2), second, influence=Influence(0.5, rescale=rescale / 2))
    (call,) = calls_of(patched, 1)
    given = [(adapter(), first, 0.9, None, rescale), (adapter(2), second, 0.5, None, rescale / 2)]
    figures.show(f"rescale {rescale}", call["output"], expected(call, given), BAR)
    plain = expected(call, [(*part[:4], 0) for part in given])
    assert figures.relative(call["output"], plain) > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rescale_of_nothing_is_nothing(dtype: torch.dtype) -> None:
    """Positions of zeros stay zeros, a norm that a low precision cannot hold is none, and the text alone stays."""
    out = torch.tensor([[[0.0, 0.0], [3e4, 4e4], [6e-8, 0.0]]]).to(dtype)
    text = torch.tensor([[[2.0, 1.0], [6e4, 0.0], [3e4, 0.0]]]).to(dtype)
    found = host.part("ipadapter_core.method.attention").rescaled(out, text, torch.ones(1, 1, 1))
    assert found.dtype == dtype and torch.isfinite(found).all()
    assert torch.equal(found[0, 0], torch.zeros(2).to(dtype))
    norms = [value.double().norm(dim=-1)[0, 1:] for value in (found, text)]
    figures.show(f"norms in {dtype}", *norms, 1e-2 if dtype != torch.float32 else 1e-6)
    assert torch.equal(
        host.part("ipadapter_core.method.attention").rescaled(text, text, torch.full((1, 1, 1), 0.7)), text
    )


def test_windows_of_animatediff_evolved_choose_their_frames() -> None:
    layout, stacks = host.part("nodes.layout"), host.part("nodes.stacks")
    role = stacks.Role.CONDITIONAL
    images = {1: core.ImageKV(torch.randn(1, 4, 8), torch.randn(1, 4, 8))}
    layouts = layout.Layouts({role: images}, {1: 2}, Influence(frames=FRAMES), (8, 8))
    excerpt = layout.excerpt_of({"ad_params": {"sub_idxs": [7, 2, 3]}}, 3, (16, 4, 8, 8))
    given = layouts.tensors((layout.Chunk(role),) * 2, excerpt, torch.device("cpu"), None)
    assert torch.equal(given.factor.flatten(), torch.tensor([FRAMES[row % 3] for row in (7, 2, 3)] * 2))


def rss() -> float:
    """MiB of this process; what was freed counts as freed."""
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.memory
@pytest.mark.parametrize("frames", [16, 64, 256])
def test_frames_hold_no_more_than_their_references(frames: int) -> None:
    """In context windows of 16, with a picture, a mask and a weight for each frame: what grows is K', V' alone."""
    host.part("nodes.kept").clear()
    model, tokens = models.comfy_model("SD15", 32), 64
    loaded = models.loaded_adapter(models.adapter_weights("base", model, num_tokens=tokens))
    influence = Influence(0.8, frames=tuple(i / frames for i in range(frames)), mask=torch.rand(frames, 8, 8))
    prompt = models.Features.random(frames, tokens=1)
    patched = models.apply(model, loaded, prompt, influence=influence, combine="one for each latent")
    held, windows = [], set()

    def watch(_: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of the model, which has nothing to do with it."""
        images = args[-1]["image_prompt_kv"][0].layers.values()
        windows.add(sum(part.numel() * part.element_size() for image in images for part in image[:2]) / 2**20)
        held.append(rss() - before)
        return x

    patched = windowed(patched, 0, 16)
    patched.add_wrapper(models.comfy.patcher_extension.WrappersMP.APPLY_MODEL, watch)
    noise = torch.randn(frames, 4, 8, 8)
    before = rss()
    sampled(patched, noise, steps=20)
    references = (frames + 1) * tokens * 2 * 4 * sum(loaded.model.widths.values()) / 2**20
    (window,), kept = windows, min(host.part("nodes.layout").KEPT, frames // 16)
    print(
        f"\n{frames} frames, {len(held)} passes: RSS grows by {held[0]:.0f} MiB at first, {held[-1]:.0f} at last; "
        f"all references are {references:.0f} MiB, a window {window:.1f}"
    )
    assert held[-1] <= references + kept * window + 48
    assert held[-1] - held[kept] <= 4, "it does not grow from window to window"
