"""What tests of the older nodes' numbers share: small models and files, and a node's predictions against the formula.

Differences are relative to the prediction's largest value, in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.support import figures, models, older, older_features, published
from tests.support.older import call, nested
from tests.support.older_features import Said, black, normalised, states, tokens
from tests.support.older_formulas import Application, predict

BAR = 1e-5
CHANNELS = {"SD15": 32, "SDXL": 64}
KIND = {"base": "pooled"}  # which features a family reads; the others the penultimate states


@functools.cache
def model(base: str = "SD15") -> Any:
    return models.comfy_model(base, CHANNELS[base])


@functools.cache
def weights(family: str = "base", base: str = "SD15") -> dict[str, Tensor]:
    if family in ("base", "plus"):
        return models.adapter_weights(family, model(base))
    layers = models.adapter_weights("base", model(base))
    shapes = published.LAYOUTS["full-face SD1.5"]
    projection = published.filled({key: value for key, value in shapes.items() if key.startswith("image_proj.")})
    return projection | {key: value for key, value in layers.items() if key.startswith("ip_adapter.")}


@functools.cache
def encoder() -> Any:
    return older.encoders.build_encoder(older_features.encoder_weights())


@functools.cache
def loaded(family: str = "base", base: str = "SD15") -> dict[str, Any]:
    return {
        "ipadapter": {"file": f"{family}.safetensors", "model": nested(weights(family, base))},
        "clipvision": {"file": "encoder", "model": encoder()},
        "insightface": {"provider": None, "model": None},
    }


def pictures(count: int = 1, height: int = 60, width: int = 80, seed: int = 0) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def mask(count: int = 1, height: int = 20, width: int = 30) -> Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(9))


def said(
    family: str, seen: Tensor, negative: Tensor | None = None, base: str = "SD15", exact: bool = False, **more: Any
) -> Said:
    """What an adapter reads of pictures. negative: what stands against them; None: what stands for no picture."""
    kind = KIND.get(family, "penultimate")
    against = black(kind, exact) if negative is None else states(normalised(negative), kind)
    return Said(weights(family, base), states(normalised(seen), kind), against, exact=exact, **more)


def predictions(patched: Any, base: str, batch: int, size: tuple[int, int], steps: int = 1) -> list[dict[str, Any]]:
    texts = [models.text(seed, models.CONTEXT[base], 4, models.POOLED.get(base)) for seed in (1, 0)]
    with models.Calls(patched) as calls:
        models.sample(patched, *texts, steps=steps, size=size, batch=batch)
    return calls


def compare(
    name: str, patched: Any, applied: Sequence[Application], base: str = "SD15", batch: int = 1,
    size: tuple[int, int] = (16, 16), steps: int = 1, bar: float = BAR,
) -> None:  # fmt: skip
    """Every call of the UNet in a run, against the formula, which differs from the bare UNet's."""
    unet, to_sigma = models.diffusers_unet(base, CHANNELS[base]), patched.model.model_sampling.percent_to_sigma
    worst, moved = 0.0, 0.0
    for one in predictions(patched, base, batch, size, steps):
        expected = predict(unet, one, applied, to_sigma)
        worst = max(worst, figures.relative(one["output"], expected))
        if not moved:
            moved = figures.relative(predict(unet, one, [], to_sigma), expected)
    print(f"\n{name}: {worst:.1e}, the adapter moves {moved:.1e}")
    assert moved > 100 * bar
    assert worst <= bar


def advanced(
    name: str, family: str = "base", base: str = "SD15", count: int = 1, how: str = "concat",
    id: str = "IPAdapterAdvanced", batch: int = 1, size: tuple[int, int] = (16, 16), steps: int = 1,
    negative: Tensor | None = None, exact: bool = False, inputs: dict[str, Any] | None = None, **formula: Any,
) -> None:  # fmt: skip
    """A node that takes pictures, against one application. inputs: the node's. formula: of the `Application`."""
    unfold, seen = "Batch" in id, pictures(count)
    given = {"image": seen, "image_negative": negative, "exact": exact, **(inputs or {})}
    if not unfold or "Precise" in id:
        given["combine_embeds"] = how
    patched, _ = call(id, model(base), loaded(family, base), **given)
    made = tokens(said(family, seen, negative, base, exact), how, unfold)
    applied = Application(weights(family, base), **made, exact=exact, **formula)
    compare(f"{base} {family} {name}", patched, [applied], base, batch, size, steps)
