"""Frame i of a batch follows reference, mask and weight i, whatever window the model sees of it."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from tests.support import held, host, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
EACH = "one for each latent"
FrameWeights = host.part("nodes.forms.frames").FrameWeights
SCHEDULES = ("standard_static", "standard_uniform", "looped_uniform", "batched")


def windowed(model: Any, schedule: str, length: int, overlap: int, stride: int = 1, closed: bool = False) -> Any:
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    return ContextWindowsManualNode.execute(
        model, context_length=length, context_overlap=overlap, context_schedule=schedule, context_stride=stride,
        closed_loop=closed, fuse_method="pyramid", dim=0, freenoise=False, cond_retain_index_list="",
        split_conds_to_windows=False, causal_window_fix=False,
    )[0]  # fmt: skip


def video(frames: int, pictures: int, masks: int, scaling: str = "V only") -> tuple[Any, Any]:
    """A model with a reference, a mask and a weight for each frame, and what the formula is told."""
    of = held.prompt(pictures, seed=20)
    mask = torch.rand(masks, 8, 8, generator=torch.Generator().manual_seed(4))
    weights = FrameWeights.execute(f"0: 0.3, {frames}: 1.2", frames, "ease in-out").result[0]
    patched = models.apply(held.model(), held.adapter(), of, weights, combine=EACH, mask=mask, embeds_scaling=scaling)
    own = {"frames": tuple(weights)} if frames > 1 else {"weight": weights[0]}
    return patched, held.said(of=of, combine=EACH, mask=mask, scaling=scaling, **own)


@pytest.mark.parametrize("scaling", ["V only", "K+mean(V) w/ C penalty"])
@pytest.mark.parametrize(("pictures", "masks"), [(0, 0), (3, 2)], ids=["one of each", "gone through again"])
@pytest.mark.parametrize("frames", [1, 2, 16])
def test_every_frame_its_own(frames: int, pictures: int, masks: int, scaling: str) -> None:
    patched, said = video(frames, pictures or frames, masks or frames, scaling)
    held.hold(f"\n{frames} frames", held.calls_of(patched, batch=frames), [said], other=[])


@pytest.mark.slow
@pytest.mark.parametrize("frames", [64, 256])
def test_many_frames(frames: int) -> None:
    patched, said = video(frames, frames, frames)
    calls = held.calls_of(patched, batch=frames, size=(4, 4), cfg=1.0)
    held.hold(f"\n{frames} frames", calls, [said], other=[])


@pytest.mark.parametrize("frames", [3, 10])
@pytest.mark.parametrize(
    ("schedule", "stride", "closed"),
    [(name, 1, False) for name in SCHEDULES] + [("standard_uniform", 2, False), ("looped_uniform", 2, True)],
)
def test_in_a_window_too(schedule: str, stride: int, closed: bool, frames: int) -> None:
    """Every schedule of ComfyUI, windows that loop and that leave out frames too."""
    patched, said = video(frames, frames, 4)
    watched = windowed(patched, schedule, 4, 1, stride, closed)
    calls = held.calls_of(watched, progress=(0.1, 0.3), batch=frames, size=(4, 4), cfg=1.0)
    seen = [list(call["options"]["context_window"].index_list) for call in calls if "context_window" in call["options"]]
    assert {frame for window in seen for frame in window} == (set(range(frames)) if frames > 4 else set())
    held.hold(f"\n{schedule}, stride {stride}, {len(calls)} calls, {frames} frames", calls, [said])


def evolved(model: Any, windows: list[list[int]]) -> Any:
    """The model as AnimateDiff-Evolved calls it: a part of the latents at a time, their numbers in `ad_params`."""
    clone = model.clone()

    def parts(executor: Any, base: Any, conds: Any, x: Any, timestep: Any, model_options: Any) -> Any:
        sums = [torch.zeros_like(x) for _ in conds]
        counts = torch.zeros(len(x), 1, 1, 1)
        for window in windows:
            options = model_options | {
                "transformer_options": model_options["transformer_options"]
                | {"ad_params": {"sub_idxs": window, "full_length": len(x), "context_length": len(window)}}
            }
            for total, part in zip(sums, executor(base, conds, x[window], timestep[window], options)):
                total[window] += part
            counts[window] += 1
        return [total / counts for total in sums]

    wrappers = models.comfy.patcher_extension.WrappersMP
    clone.add_wrapper_with_key(wrappers.CALC_COND_BATCH, "evolved", parts)
    return clone


def test_in_the_windows_of_animatediff_evolved() -> None:
    patched, said = video(9, 9, 4)
    calls = held.calls_of(evolved(patched, [[0, 1, 2, 3], [3, 5, 7, 1], [8, 0, 4, 6]]), batch=9, size=(4, 4))
    assert len(calls) == 3
    held.hold("\nAnimateDiff-Evolved", calls, [said], other=[])


def mib() -> float:
    """All tensors that Python can see."""
    gc.collect()
    tensors = (thing for thing in gc.get_objects() if type(thing) is torch.Tensor)
    storages = {storage.data_ptr(): storage.nbytes() for tensor in tensors if (storage := tensor.untyped_storage())}
    return sum(storages.values()) / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("frames", [16, 64, 256])
def test_memory_is_flat_over_moving_windows(frames: int) -> None:
    """As many bytes in the last windows as after the first few; the model has nothing to do with it."""
    patched, _ = video(frames, frames, frames)
    held.adapter()
    before, seen, calls = mib(), [], 0

    def count(_: Any, x: Any, *__: Any, **___: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 10 == 8:
            seen.append(mib() - before)
        return x

    moving = windowed(patched, "standard_uniform", 8, 2)
    moving.add_wrapper(models.comfy.patcher_extension.WrappersMP.APPLY_MODEL, count)
    steps = tuple(place / 20 for place in range(max(2, 20 * 16 // frames)))
    held.calls_of(moving, progress=steps, batch=frames)
    print(f"\n{frames} frames, {calls} windows: MiB of the run {seen[0]:.2f} at first, {max(seen):.2f} at most")
    assert len(seen) > 2
    assert max(seen) <= 1.1 * seen[0]  # the sampler itself keeps a few latents more after its first step
