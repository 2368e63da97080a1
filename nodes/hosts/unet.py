"""The one file that touches ComfyUI's model patcher: image prompts on a clone of a model.

Apply puts two things on the clone: a `LayerPatch` on each cross-attention layer, which adds image attention to whatever
attention was there, and an `ImageRun`, wrapped around sampling, which gives the patches their tensors. A patch only
reads tensors, so that a compiled model is not compiled again for another picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import CallbacksMP, WrappersMP
from einops import rearrange
from torch import Tensor

from ...ipadapter_core import ImageKV, Layer, attention, decoupled_attention, layer_table
from ..run import IMAGES, KEY, ImageRun, Reference


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
        heads = extra_options["n_heads"]

        def text(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if self.previous is not None:
                return self.previous(q, k, v, extra_options)
            precision = extra_options.get("attn_precision")
            return optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra_options)

        # The image's few tokens need no special kernel: torch's own, so that a low-precision one never changes them.
        image = partial(attention, num_heads=heads)
        out = decoupled_attention(q, k, v, self._images(q, extra_options), text, image)
        for callback, kwargs in self.added:
            sigma = float(extra_options["sigmas"][0]) if "sigmas" in extra_options else kwargs["sigma_start"]
            if kwargs["sigma_end"] <= sigma <= kwargs["sigma_start"]:
                out = (out + callback(out, q, k, v, extra_options, **kwargs)).to(q.dtype)
        return out

    def _images(self, q: Tensor, extra_options: dict[str, Any]) -> list[ImageKV]:
        if IMAGES not in extra_options:
            raise RuntimeError("an image prompt works inside a sampler; a node called this model without one")
        images = []
        for position in self.positions:
            tensors = extra_options[IMAGES].get(position)
            if tensors is not None and self.index in tensors.layers:
                k, v = tensors.layers[self.index]
                images.append(ImageKV(k.to(q), v.to(q), _grid(tensors.mask, q, extra_options)))
        return images


def _grid(mask: Tensor | None, q: Tensor, extra_options: dict[str, Any]) -> Tensor | None:
    """A mask [B, 1, h, w] on the layer's own grid of positions: [B, N, 1]."""
    if mask is None:
        return None
    height, width = extra_options["activations_shape"][-2:]
    return rearrange(F.interpolate(mask, (height, width), mode="area"), "b 1 h w -> b (h w) 1").to(q)


def cross_attention(model: Any) -> list[Layer]:
    """The cross-attention layers of a MODEL's UNet, in checkpoint order.

    Raises ValueError when there are none, as in DiT models.
    """
    unet = model.get_model_object("diffusion_model")
    blocks = getattr(unet, "num_res_blocks", 2)
    table = layer_table((name for name, _ in unet.named_modules()), blocks if isinstance(blocks, int) else blocks[0])
    if not table:
        raise ValueError(
            f"this model ({type(model.model).__name__}) has no cross-attention layers to put an image prompt in: "
            "use a UNet model (SD1.5, SD2, SDXL)"
        )
    return table


def apply(model: Any, reference: Reference, table: list[Layer]) -> Any:
    """A clone of MODEL with one more reference; the model itself stays as it is."""
    clone = model.clone()
    before = clone.get_attachment(KEY) or ImageRun()
    run = ImageRun((*before.references, reference))
    clone.set_attachments(KEY, run)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, run.outer_sample),
        (WrappersMP.SAMPLER_SAMPLE, run.sampler_sample),
        (WrappersMP.PREDICT_NOISE, run.predict_noise),
        (WrappersMP.APPLY_MODEL, run.apply_model),
    ):
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    clone.remove_callbacks_with_key(CallbacksMP.ON_CLONE, KEY)
    clone.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, _own_patches)

    blocks = [layer.block for layer in table]
    for layer in table:
        if layer.index in reference.layer_weights:
            _patch_layer(
                clone, layer, len(before.references), sum(block[:2] == layer.block[:2] for block in blocks) == 1
            )
    return clone


def _patch_layer(clone: Any, layer: Layer, position: int, is_alone: bool) -> None:
    """Set our patch on a layer, around the one that would have run.

    ComfyUI looks up (name, block, depth) before (name, block). A block's only layer is kept under the shorter key, as
    other packs do, so that theirs find ours.
    """
    held = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    short = layer.block[:2]
    key = layer.block if layer.block in held or not is_alone else short
    holder = held.get(layer.block, held.get(short))
    if isinstance(holder, LayerPatch):
        patch = LayerPatch(layer.index, holder.previous, (*holder.positions, position), holder.added)
    else:
        patch = LayerPatch(layer.index, holder, (position,))
    clone.set_model_attn2_replace(patch, *key)


def _own_patches(_: Any, clone: Any) -> None:
    """Give a new clone patches of its own, so that what others `add` to them stays there."""
    held = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for key, patch in held.items():
        if isinstance(patch, LayerPatch):
            held[key] = patch.copy()
