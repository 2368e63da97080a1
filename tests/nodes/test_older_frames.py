"""Pictures, weights and masks of older nodes over latents, windows and grids, against formulas of their own."""

from __future__ import annotations

import pytest

from tests.support.older import call
from tests.support.older_cases import advanced, compare, loaded, mask, model, pictures, said, weights
from tests.support.older_features import tokens
from tests.support.older_formulas import Application

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

FRAMES = {
    "fewer pictures than latents": {},
    "more pictures than latents": {"count": 5},
    "a list": {"weight": [0.2, 1.0, 0.0]},
    "a list, ease out": {"weight": [0.2, 1.0, 0.5, 0.7], "weight_type": "ease out"},
    "a list, style and composition": {"weight": [0.5, 1.0], "weight_type": "style and composition"},
    "a list, composition precise": {"weight": [0.5, 1.0, 0.8, 0.3], "weight_type": "composition precise"},
    "a list, mean": {"weight": [0.5, 1.0, 0.8, 0.3], "embeds_scaling": "K+mean(V) w/ C penalty"},
}


@pytest.mark.parametrize("exact", [False, True], ids=["as it was", "exact"])
@pytest.mark.parametrize("mode", FRAMES)
def test_a_picture_for_each_latent(mode: str, exact: bool) -> None:
    inputs = {"weight": 0.8} | FRAMES[mode]
    count = inputs.pop("count", 2)
    advanced(f"batch: {mode}{' exact' * exact}", "base", count=count, id="IPAdapterBatch", batch=4,
             exact=exact, inputs={**inputs, "encode_batch_size": 1}, weight=inputs["weight"],
             weight_type=inputs.get("weight_type", "linear"),
             scaling=inputs.get("embeds_scaling", "V only"))  # fmt: skip


def test_negatives_for_each_latent() -> None:
    advanced("batch: three pictures, two negatives", "plus", count=3, id="IPAdapterBatch", batch=3,
             negative=pictures(2, seed=5))  # fmt: skip


def test_a_list_where_nothing_is_unfolded() -> None:
    """Its first number counts."""
    advanced("a list, not unfolded", inputs={"weight": [0.4, 1.0]}, weight=0.4, batch=2)


@pytest.mark.parametrize("ids", [(0, 1, 2), (3, 4, 5), (4, 5, 0)], ids=str)
def test_windows_of_animatediff(ids: tuple[int, ...]) -> None:
    seen, masks, numbers = pictures(4), mask(6), [0.2, 0.4, 0.6, 0.8, 1.0]
    windowed = model().clone()
    windowed.model_options["transformer_options"]["ad_params"] = {"sub_idxs": list(ids), "full_length": 6}
    patched, _ = call("IPAdapterBatch", windowed, loaded(), image=seen, weight=numbers, attn_mask=masks)
    applied = Application(weights(), **tokens(said("base", seen), unfold=True), weight=numbers, mask=masks)
    compare(f"window {ids}", patched, [applied], batch=3)
    patched, _ = call("IPAdapterAdvanced", windowed, loaded(), image=seen[:1], attn_mask=masks)
    applied = Application(weights(), **tokens(said("base", seen[:1])), mask=masks)
    compare(f"window {ids}, masks alone", patched, [applied], batch=3)


@pytest.mark.parametrize("exact", [False, True], ids=["as it was", "exact"])
def test_windows_of_comfyui(exact: bool) -> None:
    """Every one of them begins with picture 0, weight 0 and mask 0, unless `exact`."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    seen, masks, numbers = pictures(4), mask(4), [0.2, 0.4, 0.8, 1.2]
    patched, _ = call("IPAdapterBatch", model(), loaded(), image=seen, weight=numbers, attn_mask=masks, exact=exact)
    windowed = ContextWindowsManualNode.execute(
        patched, context_length=2, context_overlap=0, context_schedule="standard_static", context_stride=1,
        closed_loop=False, fuse_method="flat", dim=0, freenoise=False, cond_retain_index_list="",
        split_conds_to_windows=False, causal_window_fix=False,
    )[0]  # fmt: skip
    source = tokens(said("base", seen, exact=exact), unfold=True)
    applied = Application(weights(), **source, weight=numbers, mask=masks, exact=exact)
    compare(f"ComfyUI's windows{' exact' * exact}", windowed, [applied], batch=4)


# The guess is wrong at (10, 14), three positions short at (28, 9), and right at (16, 24).
@pytest.mark.parametrize("exact", [False, True], ids=["as it was", "exact"])
@pytest.mark.parametrize("size", [(16, 24), (10, 14), (28, 9)], ids=str)
@pytest.mark.parametrize("masks", [1, 2, 4])
def test_masks(masks: int, size: tuple[int, int], exact: bool) -> None:
    given = mask(masks)
    advanced(f"{masks} masks on {size}{' exact' * exact}", batch=3, size=size, exact=exact,
             inputs={"attn_mask": given, "weight_type": "weak input"}, mask=given,
             weight_type="weak input")  # fmt: skip


def test_a_mask_sdxl() -> None:
    given = mask()
    advanced("a mask", base="SDXL", size=(12, 20), inputs={"attn_mask": given}, mask=given)
