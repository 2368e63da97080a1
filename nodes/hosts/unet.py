"""UNets (SD1.5, SD2, SDXL, Kolors): a patch on each cross-attention layer, around whatever attention was there.

A patch only reads tensors, so that a compiled model is not compiled again for another picture.

Shapes: B batch, N positions of a layer, T tokens, D width of a layer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ...ipadapter_core import Site, add_image_attention, attention_by_heads, comfyui_block, unet_sites
from ..layout import KEY, Grid
from ..models import Adapter
from ..record import RECORD
from ..reference import Reference
from .fit import check_base, text_projection
from .host import Host, images_of
from .lora import with_lora


class LayerPatch:
    """Attention of one layer: what was there before, plus image attention for the references in `positions`.

    Immutable but for `add`, with which other packs stack theirs on the object that holds a layer (the most used
    IP-Adapter pack, InstantID and PuLID do). Every clone of a model has patches of its own, so nothing leaks upstream.
    """

    def __init__(self, index: int, previous: Any, positions: tuple[int, ...], added: tuple[Any, ...] = ()) -> None:
        self.index = index
        self.previous = previous
        self.positions = positions
        self.added = added

    def copy(self) -> LayerPatch:
        return LayerPatch(self.index, self.previous, self.positions, self.added)

    def add(self, callback: Callable[..., Tensor], **kwargs: Any) -> None:
        """Stack another pack's `callback(out, q, k, v, extra_options, **kwargs)`; it returns what is to be added."""
        self.added += ((callback, kwargs),)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        if self.previous is None:
            text = optimized_attention(
                q, k, v, extra_options["n_heads"], attn_precision=extra_options.get("attn_precision"),
                transformer_options=extra_options,
            )  # fmt: skip
        else:
            text = self.previous(q, k, v, extra_options)
        if (watch := extra_options.get(RECORD)) is not None:  # only while a run is recorded
            watch.keep(self.index, extra_options, q, text)
        images = images_of(extra_options, self.index, q, _grid, self.positions)
        # The image's few tokens need no special kernel: torch's own, so that a low-precision one never changes them.
        out = add_image_attention(text, q, images, attention_by_heads)
        for callback, kwargs in self.added:
            sigma = float(extra_options["sigmas"][0]) if "sigmas" in extra_options else kwargs["sigma_start"]
            if kwargs["sigma_end"] <= sigma <= kwargs["sigma_start"]:
                out = (out + callback(out, q, k, v, extra_options, **kwargs)).to(q.dtype)
        return out


class UNet(Host):
    """ComfyUI's UNetModel of any depth, known by the names of its modules."""

    def sites(self, model: Any) -> list[Site]:
        unet = model.get_model_object("diffusion_model")
        return unet_sites((name for name, _ in unet.named_modules()), getattr(unet, "num_res_blocks", 2))

    def heads(self, model: Any) -> Mapping[int, int]:
        unet = model.get_model_object("diffusion_model")
        found = _heads.get(unet)
        if found is None:
            # Walking some thousand modules takes longer than all else that is due before a run.
            found = _heads[unet] = {site.index: unet.get_submodule(site.comfyui).heads for site in self.sites(model)}
        return found

    def check(self, adapter: Adapter, model: Any, sites: list[Site]) -> None:
        check_base(adapter, model, sites)

    def text_projection(self, adapter: Adapter, model: Any) -> torch.nn.Linear | None:
        return text_projection(adapter, model)

    def with_lora(self, model: Any, adapter: Adapter, strength: float, sites: list[Site]) -> Any:
        return with_lora(model, adapter, strength, sites)

    def put(self, clone: Any, reference: Reference, sites: list[Site], position: int) -> Any:
        clone.remove_callbacks_with_key(CallbacksMP.ON_CLONE, KEY)
        clone.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, _own_patches)
        blocks = {site.index: comfyui_block(site) for site in sites}
        for index, block in blocks.items():
            if index in reference.layer_weights:
                is_alone = sum(other[:2] == block[:2] for other in blocks.values()) == 1
                _patch_layer(clone, index, block, position, is_alone)
        return clone


# Heads by index of a site of the UNets that are alive.
_heads: weakref.WeakKeyDictionary[Any, Mapping[int, int]] = weakref.WeakKeyDictionary()


def _grid(options: Mapping[str, Any]) -> Grid:
    height, width = options["activations_shape"][-2:]
    return height, width


def _patch_layer(clone: Any, index: int, block: tuple[str, int, int], position: int, is_alone: bool) -> None:
    """Set our patch on a layer, around the one that would have run.

    ComfyUI looks up (name, block, depth) before (name, block). A block's only layer is kept under the shorter key, as
    other packs do, so that theirs find ours.
    """
    held = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    short = block[:2]
    key = block if block in held or not is_alone else short
    holder = held.get(block, held.get(short))
    if isinstance(holder, LayerPatch):
        patch = LayerPatch(index, holder.previous, (*holder.positions, position), holder.added)
    else:
        patch = LayerPatch(index, holder, (position,))
    clone.set_model_attn2_replace(patch, *key)


def _own_patches(_: Any, clone: Any) -> None:
    """Give a new clone patches of its own, so that what others `add` to them stays there."""
    held = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for key, patch in held.items():
        if isinstance(patch, LayerPatch):
            held[key] = patch.copy()
