"""An image prompt on a model: checked against the model, then put on a clone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.patcher_extension import WrappersMP

from ..ipadapter_core import (
    CONCATENATE,
    Given,
    Influence,
    Site,
    check_weights,
    layer_weights,
    layer_words,
    swapped_layers,
)
from .hosts import host_of
from .hosts.host import Host
from .layout import KEY
from .models import Adapter
from .prompts.protocol import Prompt, given_of, negative_of
from .reference import Reference
from .run import RunHooks


def apply_adapter(
    model: Any,
    adapter: Adapter,
    prompt: Prompt,
    influence: Influence,
    combine: str = CONCATENATE,
    lora_strength: float = 1.0,
    shortcut_scale: float = 1.0,
    negative: Prompt | None = None,
    picture_weights: tuple[float, ...] = (),
) -> Any:
    """A clone of MODEL that follows the image prompt; the model itself where the influence is nothing.

    combine: what a batch of pictures means; picture_weights: a factor for each of them, or none. negative: an image
    prompt in place of "no picture". lora_strength, shortcut_scale: of FaceID adapters.
    Raises ValueError when adapter, model and image prompt do not fit each other.
    """
    if influence.is_nothing:
        return model
    host, sites = checked_host(model, adapter)
    inputs, unconditional = given_of(prompt, adapter.spec, adapter.name)
    if negative is not None:
        unconditional = negative_of(negative, adapter.spec, adapter.name)
    check_weights(picture_weights, inputs.rows, combine)
    settings = {"combine": combine, "picture_weights": picture_weights, "shortcut_scale": shortcut_scale}
    patched = host.with_lora(model, adapter, lora_strength, sites)
    swapped = _swapped(influence, sites)
    return _applied(patched, host, sites, adapter, inputs, unconditional, influence, swapped, **settings)


def apply_given(
    model: Any,
    adapter: Adapter,
    inputs: Given,
    unconditional: Given,
    influence: Influence,
    swapped: frozenset[int] = frozenset(),
    **settings: Any,
) -> Any:
    """A clone of MODEL that follows what an adapter's projection reads, wherever that was made.

    swapped: sites where the picture acts in unconditional predictions alone. settings: other fields of a Reference.
    Raises ValueError when adapter and model do not fit each other.
    """
    if influence.is_nothing:
        return model
    host, sites = checked_host(model, adapter)
    swapped = swapped or _swapped(influence, sites)
    return _applied(model, host, sites, adapter, inputs, unconditional, influence, swapped, **settings)


def _applied(
    model: Any, host: Host, sites: list[Site], adapter: Adapter, inputs: Given, unconditional: Given,
    influence: Influence, swapped: frozenset[int], **settings: Any,
) -> Any:  # fmt: skip
    """A clone of MODEL with one more reference; adapter and model fit each other."""
    reference = Reference(
        adapter=adapter,
        inputs=inputs,
        unconditional=unconditional,
        influence=influence,
        layer_weights=_layer_weights(influence, sites),
        swapped=swapped,
        text_projection=host.text_projection(adapter, model),
        **settings,
    )
    return _with_reference(model, host, sites, reference)


def checked_host(model: Any, adapter: Adapter) -> tuple[Host, list[Site]]:
    """The host of a MODEL and its sites. Raises ValueError when the adapter does not fit the model."""
    host, sites = host_of(model)
    host.check(adapter, model, sites)
    return host, sites


def layers_said(model: Any, influence: Influence) -> str:
    """Which layers of MODEL an influence means, for people; nothing where they are given one by one."""
    if isinstance(influence.layers, Mapping):
        return ""
    _, sites = host_of(model)
    return layer_words(layer_weights(influence.layers, sites), sites)


def _layer_weights(influence: Influence, sites: list[Site]) -> Mapping[int, float]:
    """The weight of each site by its index, sites that do nothing left out."""
    layers = influence.layers
    shares = layers if isinstance(layers, Mapping) else layer_weights(layers, sites)
    return {index: influence.weight * share for index, share in shares.items() if share}


def _swapped(influence: Influence, sites: list[Site]) -> frozenset[int]:
    return frozenset() if isinstance(influence.layers, Mapping) else swapped_layers(influence.layers, sites)


def _with_reference(model: Any, host: Host, sites: list[Site], reference: Reference) -> Any:
    """A clone of MODEL with one more reference; the model itself stays as it is."""
    clone = model.clone()
    before = clone.get_attachment(KEY)
    references = () if before is None else before.references
    hooks = RunHooks(host, (*references, reference))
    clone.set_attachments(KEY, hooks)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, hooks.outer_sample),
        (WrappersMP.SAMPLER_SAMPLE, hooks.sampler_sample),
        (WrappersMP.PREDICT_NOISE, hooks.predict_noise),
        (WrappersMP.CALC_COND_BATCH, hooks.calc_cond_batch),
        (WrappersMP.APPLY_MODEL, hooks.apply_model),
    ):
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    return host.put(clone, reference, sites, len(references))
