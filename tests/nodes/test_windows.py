"""Context windows: along the batch they choose references and masks, along height and width they cut the mask."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import pytest
import torch

from tests.support import figures, host, models

pytestmark = pytest.mark.comfy
BAR = 1e-5


@functools.cache
def adapter() -> Any:
    return models.loaded_adapter(models.adapter_weights("base", models.comfy_model("SD15", 32)))


def windowed(
    model: Any, dim: int, length: int, schedule: str = "standard_static", overlap: int = 0, causal: bool = False
) -> Any:
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    return ContextWindowsManualNode.execute(
        model, context_length=length, context_overlap=overlap, context_schedule=schedule, context_stride=1,
        closed_loop=False, fuse_method="flat", dim=dim, freenoise=False, cond_retain_index_list="",
        split_conds_to_windows=False, causal_window_fix=causal,
    )[0]  # fmt: skip


def sampled(model: Any, noise: torch.Tensor, steps: int = 1, cfg: float = 4.0) -> None:
    with torch.inference_mode():
        models.comfy.sample.sample(
            model, noise, steps, cfg, "euler", "normal", models.text(5), models.text(0), torch.zeros_like(noise),
            seed=3, disable_pbar=True,
        )  # fmt: skip


def calls_of(model: Any, noise: torch.Tensor) -> list[dict[str, Any]]:
    with models.Calls(model) as calls:
        sampled(model, noise)
    return calls


@pytest.mark.parametrize("causal", [False, True], ids=["", "with the row before"])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_window_sees_its_part_of_the_mask(dim: int, causal: bool) -> None:
    """The prediction of a window is that of its part of the latents with its part of the mask."""
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    mask = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(4))
    calls = calls_of(windowed(models.apply(model, adapter(), prompt, mask=mask), dim, 8, causal=causal), noise)
    assert len(calls) == 2
    for call, start in zip(calls, (0, 8)):
        first = start - 1 if causal and start else start
        part = range(first, start + 8)
        cut = mask.index_select(dim - 1, torch.tensor(part))
        alone = models.apply(model, adapter(), prompt, mask=cut)
        (expected,) = calls_of(alone, noise.index_select(dim, torch.tensor(part)))
        assert torch.equal(call["x"], expected["x"])
        figures.show(f"window {part}", call["output"], expected["output"], BAR)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_window_that_the_mask_leaves_out_is_the_bases(dim: int) -> None:
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    half = torch.zeros(1, 16, 16)
    half.narrow(dim - 1, 0, 8).fill_(1)
    masked, full, none = (
        calls_of(windowed(patched, dim, 8), noise)
        for patched in (
            models.apply(model, adapter(), prompt, mask=half), models.apply(model, adapter(), prompt), model,
        )
    )  # fmt: skip
    assert figures.relative(masked[0]["output"], full[0]["output"]) <= 1e-6
    assert torch.equal(masked[1]["output"], none[1]["output"])
    effect = figures.relative(full[1]["output"], none[1]["output"])
    print(f"\nwithout the cut, the second window would differ by up to {effect:.1e}")
    assert effect > 1e-2


@pytest.mark.parametrize(("pictures", "kept"), [(1, 1), (64, host.part("nodes.layout").KEPT)])
def test_windows_that_move_in_every_step_keep_few_tensors(pictures: int, kept: int) -> None:
    """64 frames in ComfyUI's uniform windows: as many bytes after many windows as after the first few."""
    model = models.comfy_model("SD15", 32)
    prompt = models.Features.random(pictures=pictures, tokens=2)
    patched = models.apply(model, adapter(), prompt, combine="one for each latent", mask=torch.ones(pictures, 4, 4))
    noise = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    alive: dict[int, weakref.ref[torch.Tensor]] = {}
    counts, windows = [], set()

    def watch(_: Any, x: Any, t: Any, concat: Any, text: Any, control: Any, options: Any, **__: Any) -> Any:
        """In place of the model, which has nothing to do with it."""
        windows.add(tuple(options["context_window"].index_list))
        given = options["image_prompt_kv"][0]
        for tensor in (
            given.where.mask,
            *given.where.factors.values(),
            *(part for image in given.layers.values() for part in image[:2]),
        ):
            alive[id(tensor)] = weakref.ref(tensor)
        found = [tensor for reference in alive.values() if (tensor := reference()) is not None]
        counts.append(sum(tensor.numel() * tensor.element_size() for tensor in found) / 2**20)
        return x

    watched = windowed(patched, 0, 16, "standard_uniform", overlap=4)
    watched.add_wrapper(models.comfy.patcher_extension.WrappersMP.APPLY_MODEL, watch)
    sampled(watched, noise, steps=20, cfg=1.0)
    print(
        f"\n{pictures} pictures: {len(windows)} windows, MiB kept {counts[0]:.2f} at first, {max(counts):.2f} at most"
    )
    assert len(windows) > 5 * kept
    assert max(counts) <= kept * counts[0] * 1.01
