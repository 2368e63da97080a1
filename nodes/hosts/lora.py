"""FaceID's LoRA on the base model, as weight patches of ComfyUI's own patcher.

Shapes: up [D, R] and down [R, C] of a matrix [D, C], R the rank.
"""

from __future__ import annotations

import logging
from typing import Any

import comfy.lora
import torch
from torch import Tensor

from ...ipadapter_core import MATRICES, Site, attention_names
from ..models import Adapter

log = logging.getLogger(__name__)
ALIKE = 1e-2  # relative difference of two LoRAs that are the same one in another precision or at another strength


def with_lora(model: Any, adapter: Adapter, strength: float, sites: list[Site]) -> Any:
    """A clone of MODEL with the adapter's LoRA, or the model itself: without a LoRA, at strength 0, or where it has
    the same one already (from a LoRA loader, or from an adapter of the same file).

    Raises ValueError when the LoRA does not fit the model.
    """
    if not adapter.lora or strength == 0:
        return model
    names = attention_names(sites)
    matrices: dict[str, Tensor] = {}
    keys: dict[str, str] = {}
    for (index, projection), (up, down) in adapter.lora.items():
        if index not in names:
            raise ValueError(f"the LoRA of {adapter.name} has an attention layer {index} that the model does not have")
        name = f"{names[index]}.{MATRICES[projection]}"
        keys[name] = f"diffusion_model.{name}.weight"
        matrices |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    if has_lora(model, adapter, names):
        log.info(f"the LoRA of {adapter.name} is on the model already and was not added again")
        return model
    check_shapes(model, adapter, names)
    clone = model.clone()
    added = clone.add_patches(comfy.lora.load_lora(matrices, keys), strength)
    assert len(added) == len(keys), "every layer was found before"
    return clone


def check_shapes(model: Any, adapter: Adapter, names: dict[int, str]) -> None:
    unet = model.get_model_object("diffusion_model")
    for (index, projection), (up, down) in adapter.lora.items():
        layer = unet.get_submodule(f"{names[index]}.{MATRICES[projection]}")
        if (up.shape[0], down.shape[1]) != (layer.out_features, layer.in_features):
            raise ValueError(
                f"the LoRA of {adapter.name} changes a {up.shape[0]} x {down.shape[1]} matrix, but the model's "
                f"{names[index]}.{projection} is {layer.out_features} x {layer.in_features}: use a model of the "
                "adapter's base"
            )


def has_lora(model: Any, adapter: Adapter, names: dict[int, str]) -> bool:
    """Whether the model has this LoRA, at any strength, from whatever file: its smallest matrix is compared."""
    index, projection = min(adapter.lora, key=lambda place: adapter.lora[place][0].shape[0])
    key = f"diffusion_model.{names[index]}.{MATRICES[projection]}.weight"
    ours = _product(*adapter.lora[index, projection])
    for strength, patch, *_ in model.patches.get(key, []):
        weights = getattr(patch, "weights", None)
        if strength == 0 or not isinstance(weights, tuple) or len(weights) < 2 or weights[0].ndim != 2:
            continue
        theirs = _product(weights[0], weights[1])
        if theirs.shape != ours.shape:
            continue
        # The same up to a factor, since an alpha or a trainer's scale may be in it.
        factor = (ours * theirs).sum() / theirs.square().sum().clamp(min=1e-30)
        if (ours - factor * theirs).norm() <= ALIKE * ours.norm():
            return True
    return False


def _product(up: Tensor, down: Tensor) -> Tensor:
    return torch.mm(up.float(), down.float())
