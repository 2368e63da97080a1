"""Older nodes at SD1.5's full size, and in the precisions that models are used in, against the formulas in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import figures, models
from tests.support.older import call
from tests.support.older_cases import CHANNELS, compare, loaded, mask, model, pictures, said, weights
from tests.support.older_features import tokens
from tests.support.older_formulas import Application, predict

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
# The node's inputs, and the formula's where they differ.
MODES: dict[str, dict[str, Any]] = {
    "linear": {},
    "ease out, K+V": {"weight_type": "ease out", "embeds_scaling": "K+V"},
    "composition precise": {"weight_type": "composition precise"},
    "a mask, K+mean(V)": {"attn_mask": mask(), "embeds_scaling": "K+mean(V) w/ C penalty"},
}


def application(file: dict[str, Tensor], seen: Any, inputs: dict[str, Any]) -> Application:
    return Application(
        file, **tokens(seen), weight_type=inputs.get("weight_type", "linear"), mask=inputs.get("attn_mask"),
        scaling=inputs.get("embeds_scaling", "V only"),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.parametrize("family", ["base", "plus"])
def test_full_size(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The differences are those of the small model's."""
    monkeypatch.setitem(CHANNELS, "SD15", 320)
    for cached in (model, weights, loaded):
        cached.cache_clear()
    try:
        for mode in ("ease out, K+V", "composition precise"):
            inputs = MODES[mode]
            patched, _ = call("IPAdapterAdvanced", model(), loaded(family), image=pictures(2), **inputs)
            applied = application(weights(family), said(family, pictures(2)), inputs)
            compare(f"full size {family} {mode}", patched, [applied])
    finally:
        for cached in (model, weights, loaded):
            cached.cache_clear()


def in_precision(dtype: torch.dtype, compute: torch.dtype) -> Any:
    """The small model with its weights in a precision."""
    config = models.copy.deepcopy(models.UNETS["SD15"]) | {"model_channels": 32, "dtype": dtype}
    known = models.comfy.supported_models.SD15(config)
    known.unet_config = config
    known.set_inference_dtype(dtype, None if dtype == compute else compute)
    low = known.get_model({}, device="cpu")
    state = {key: value.to(dtype) for key, value in model().model.diffusion_model.state_dict().items()}
    low.diffusion_model.load_state_dict(state, strict=True)
    low.diffusion_model.to(dtype)
    device = torch.device("cpu")
    return models.comfy.model_patcher.ModelPatcher(low, load_device=device, offload_device=device)


@pytest.mark.parametrize(
    ("dtype", "compute", "bar"),
    [
        (torch.float16, torch.float32, 1e-2),
        (torch.float16, torch.float16, 2e-2),
        (torch.bfloat16, torch.bfloat16, 5e-2),
    ],
    ids=["fp16 in fp32", "fp16", "bf16"],
)
def test_low_precision(dtype: torch.dtype, compute: torch.dtype, bar: float) -> None:
    """No further from fp32 than any adapter is in that precision."""
    low, unet = in_precision(dtype, compute), models.diffusers_unet("SD15", CHANNELS["SD15"])
    for mode, inputs in MODES.items():
        patched, _ = call("IPAdapterAdvanced", low, loaded("plus"), image=pictures(2), **inputs)
        applied = application(weights("plus"), said("plus", pictures(2)), inputs)
        (found,), (wanted,) = calls(patched), calls(model())
        expected = predict(unet, wanted, [applied], model().model.model_sampling.percent_to_sigma)
        error = figures.relative(found["output"].float(), expected)
        print(f"\n{dtype} computed in {compute}, {mode}: {error:.1e} from the formula in fp32")
        assert error <= bar


def calls(patched: Any) -> list[dict[str, Any]]:
    with models.Calls(patched) as found:
        models.sample(patched, models.text(1, 768, 4), models.text(0, 768, 4), steps=1)
    return found
