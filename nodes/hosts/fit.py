"""Whether an adapter fits a model: one sentence where it does not."""

from __future__ import annotations

from typing import Any

import torch

from ...ipadapter_core import BASES, Base, Site, base_of, find_base
from ...ipadapter_core.facts.bases import WITHOUT_ADAPTERS, numbers_of
from ..find import adapters_for, where_to_get
from ..models import Adapter

NAMED = 3  # files in a sentence


def check_base(adapter: Adapter, model: Any, sites: list[Site]) -> None:
    """Hold the adapter's layers and widths to the model's. Raises ValueError when they differ."""
    spec = adapter.spec
    unet = model.get_model_object("diffusion_model")
    to_k = [unet.get_submodule(site.comfyui).to_k for site in sites]
    widths = {site.index: module.out_features for site, module in zip(sites, to_k)}
    context = to_k[0].in_features
    ours = adapter.model.widths
    wanted, found = base_of(spec), find_base(context, len(sites), _vector_dim(unet))
    has_faces = spec.identity is not None
    # Kolors has SDXL's layers, but no adapter of one knows the other's: the rows tell them apart.
    if ours == widths and spec.context_dim == context and wanted == found:
        return
    for_base, own = another(len(spec.layers), spec.context_dim), "its own model"
    if wanted is not None:
        for_base, own = wanted.name, f"a checkpoint of {wanted.name}"
    if wanted == found:
        name = found.name if found else numbers_of(context, len(sites))
        name = f"{name} with layers {min(widths.values())} to {max(widths.values())} wide"
        instead = f"load an adapter for {name}, or {own}"
    else:
        name = found.name if found else WITHOUT_ADAPTERS.get((context, len(sites))) or another(len(sites), context)
        instead = _instead(name, found, adapters_for(found, context, len(sites), has_faces), has_faces, own)
    raise ValueError(f"{adapter.name} is for {for_base}, but the model is {name}: {instead}")


def _instead(name: str, base: Base | None, here: list[str], has_faces: bool, own: str) -> str:
    """What to load with a model of this name: an adapter that is there, or one that is published, or another model."""
    address = where_to_get(base, has_faces)
    if not here and not address:
        of_faces = " of faces" if has_faces else ""
        return f"no adapter{of_faces} was published for it, load {own} (or an adapter that was trained for this model)"
    return f"load an adapter for {name if base else 'it'}{_where(here, address)}, or {own}"


def another(num_sites: int, context_dim: int) -> str:
    """A base that has no name, beside one that has."""
    return f"another model ({num_sites} layers, {context_dim}-wide text)"


def _where(here: list[str], address: str) -> str:
    """Which adapters fit, of those that are there; else where one is."""
    if here:
        more = ", ..." if len(here) > NAMED else ""
        return f" ({', '.join(here[:NAMED])}{more})"
    return f" (none is in models/ipadapter: download {address} there)" if address else ""


def base_of_model(model: Any, sites: list[Site]) -> Base | None:
    """The base whose numbers a MODEL has; None: nobody's."""
    unet = model.get_model_object("diffusion_model")
    return find_base(unet.get_submodule(sites[0].comfyui).to_k.in_features, len(sites), _vector_dim(unet))


def _vector_dim(unet: Any) -> int | None:
    """Width of the pooled text and sizes that a UNet reads, which tells Kolors from SDXL; None: nobody's."""
    if hasattr(unet, "encoder_hid_proj"):  # the base that projects its text
        return next(base.vector_dim for base in BASES if base.text_dim)
    label = getattr(unet, "label_emb", None)
    found = getattr(label.get_submodule("0.0"), "in_features", None) if isinstance(label, torch.nn.Sequential) else None
    return found if any(base.vector_dim == found for base in BASES) else None


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
