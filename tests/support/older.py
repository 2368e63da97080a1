"""The older nodes as other programs call them, and small models for them."""

from __future__ import annotations

import functools
from typing import Any

import torch

from tests.support import clip_models, host, models

register, encoders = host.part("nodes.older.register"), host.part("nodes.encoders")


@functools.cache
def classes() -> dict[str, Any]:
    found: dict[str, Any] = {}
    register.register(found, {})
    return found


def call(id: str, *args: Any, **inputs: Any) -> Any:
    """A node as other programs call it: an instance, by the name of its method."""
    node = classes()[id]()
    return getattr(node, node.FUNCTION)(*args, **inputs)


@functools.cache
def encoder() -> Any:
    """An encoder with ViT-H's widths and two layers."""
    return encoders.build_encoder(clip_models.random_weights(clip_models.vision_config("ViT-H-14", layers=2)))


def nested(weights: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in weights.items():
        group, _, rest = key.partition(".")
        found[group][rest] = value
    return found


@functools.cache
def model(base: str = "SD15") -> Any:
    return models.comfy_model(base, 32 if base == "SD15" else 64)


@functools.cache
def loaded(family: str = "base", base: str = "SD15") -> dict[str, Any]:
    weights = nested(models.adapter_weights(family, model(base)))
    return {
        "ipadapter": {"file": f"{family}.safetensors", "model": weights},
        "clipvision": {"file": "encoder", "model": encoder()},
        "insightface": {"provider": None, "model": None},
    }


def pictures(count: int = 1, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def prediction(of: Any, batch: int = 1, base: str = "SD15") -> torch.Tensor:
    pooled = models.POOLED.get(base)
    texts = [models.text(seed, models.CONTEXT[base], 4, pooled) for seed in (1, 0)]
    return models.sample(of, *texts, steps=1, size=(8, 8), batch=batch)


@functools.cache
def plain(batch: int = 1, base: str = "SD15") -> torch.Tensor:
    return prediction(model(base), batch, base)


def changed(found: Any, batch: int = 1, base: str = "SD15") -> torch.Tensor:
    """The prediction, which differs from the model's own."""
    result = prediction(found, batch, base)
    difference = float((result - plain(batch, base)).abs().max())
    print(f"changed by {difference:.4f}")
    assert difference > 1e-4
    return result
