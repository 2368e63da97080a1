"""Whether an adapter fits a model: one sentence where it does not."""

from __future__ import annotations

from typing import Any

import torch

from ...ipadapter_core import AdapterSpec, Site
from ...ipadapter_core.method.spec import KOLORS
from ..models import Adapter

KOLORS_VECTOR = 5632  # of pooled text and sizes; SDXL's is 2816


def check_base(adapter: Adapter, model: Any, sites: list[Site]) -> None:
    """Hold the adapter's layers and widths to the model's. Raises ValueError when they differ."""
    spec = adapter.spec
    unet = model.get_model_object("diffusion_model")
    to_k = [unet.get_submodule(site.comfyui).to_k for site in sites]
    widths = {site.index: module.out_features for site, module in zip(sites, to_k)}
    context = to_k[0].in_features
    ours = {index: adapter.model.ip_adapter[str(index)].to_k_ip.out_features for index in spec.layers}
    found = KOLORS if is_kolors(unet) else AdapterSpec.base_of(context, len(sites))
    # SDXL and Kolors have the same layers, but no adapter of one knows the other's.
    if ours != widths or spec.context_dim != context or (KOLORS in (found, spec.base) and found != spec.base):
        if found == spec.base:
            found += f" with layers {min(widths.values())} to {max(widths.values())} wide"
        raise ValueError(
            f"the adapter {adapter.name} is for {spec.base}, but the model is {found}: "
            f"load an adapter for {found}, or a checkpoint of {spec.base}"
        )


def is_kolors(unet: Any) -> bool:
    """Whether a UNet is Kolors': told by its projection of text, or by its wider vector of text and sizes."""
    if hasattr(unet, "encoder_hid_proj"):
        return True
    label = getattr(unet, "label_emb", None)
    return isinstance(label, torch.nn.Sequential) and getattr(label[0][0], "in_features", 0) == KOLORS_VECTOR


def text_projection(adapter: Adapter, model: Any) -> Any:
    """The base's projection of text for adapters whose tokens go through it (Kolors), else None.

    Raises ValueError when neither the adapter's file nor the model has one.
    """
    spec = adapter.spec
    if spec.projected_dim == spec.context_dim or spec.has_text_projection:
        return None
    unet = model.get_model_object("diffusion_model")
    projection = getattr(unet, "encoder_hid_proj", None)
    expected = (spec.context_dim, spec.projected_dim)
    if projection is None or tuple(projection.weight.shape) != expected:
        raise ValueError(
            f"the tokens of {adapter.name} go through the base's projection of text, {expected[1]} to {expected[0]} "
            "(encoder_hid_proj), and neither this file nor the model has it: load Kolors with its own UNet loader, or "
            "add the base's encoder_hid_proj to the file with python -m ipadapter_core convert"
        )
    return projection
