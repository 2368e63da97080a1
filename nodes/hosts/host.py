"""The door for kinds of models: how each takes image attention.

A host finds the sites of a model, says whether an adapter fits them, and brings image attention to them by what
ComfyUI keeps for that: for good on a clone (`put`), or in the options of every forward pass (`bind`), where it comes
last and finds whatever others put there. All else, from the order of steps to masks, is the same for every host.

Shapes: B batch, N positions, H heads, T image tokens, d width of a head, D width of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ...ipadapter_core import ImageKV, Site
from ..layout import IMAGES, Grid, ReferenceTensors
from ..models import Adapter
from ..reference import Reference, Source, constant_keys_values


class Host(Protocol):
    """One kind of model. What is written here is what most of them need; a host says what differs."""

    def sites(self, model: Any) -> list[Site]:
        """The sites of a MODEL in the order of adapters' files; none for a model of another kind."""

    def heads(self, model: Any) -> Mapping[int, int]:
        """The number of heads of each site by its index; asked once a run."""

    def check(self, adapter: Adapter, model: Any, sites: list[Site]) -> None:
        """Hold an adapter to the model. Raises ValueError when it does not fit."""

    def text_projection(self, adapter: Adapter, model: Any) -> torch.nn.Linear | None:
        """The base's own layer that the adapter's image tokens go through, if any. Raises ValueError when it lacks."""
        return None

    def with_lora(self, model: Any, adapter: Adapter, strength: float, sites: list[Site]) -> Any:
        """A clone with what the adapter changes in the base's own weights; the model itself where there is nothing."""
        return model

    def keys_values(self, references: Sequence[Reference], model: Any) -> Sequence[Source]:
        """Where a run gets K' and V' of the references, in their order; asked before the base is loaded."""
        return constant_keys_values(references, model.load_device, model.model.get_dtype_inference())

    def put(self, clone: Any, reference: Reference, sites: list[Site], position: int) -> Any:
        """The clone with what a new reference, the one at `position`, needs on it for good."""
        return clone

    def bind(self, options: Mapping[str, Any], x: Tensor, kept: dict[Any, Any]) -> Mapping[str, Any]:
        """The options of one forward pass of x [B, C, h, w] with what reads the tensors in `options[IMAGES]`.

        Others hold what is in the options: change copies. What is put there must be the same objects in every step, or
        a compiled model is compiled again: `kept` lives as long as the run.
        """
        return options


def images_of(
    options: Mapping[str, Any],
    index: int,
    q: Tensor,
    grid: Callable[[Mapping[str, Any]], Grid],
    positions: Iterable[int] | None = None,
) -> list[ImageKV]:
    """K', V' [B, H, T, d] and factors for the site `index` in a forward pass, in q's dtype; positions: of these
    references only.

    q: [B, N, D]. grid: options to height and width of q's N positions, asked only where there is a mask.
    Raises RuntimeError outside of a sampler.
    """
    given: Mapping[int, ReferenceTensors] | None = options.get(IMAGES)
    if given is None:
        raise RuntimeError("an image prompt works inside a sampler; a node called this model without one")
    images = []
    for position in given if positions is None else positions:
        tensors = given.get(position)
        image = None if tensors is None else tensors.layers.get(index)
        if tensors is not None and image is not None:
            images.append(tensors.image(image, options, q, grid))
    return images
