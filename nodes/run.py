"""Around a run of the sampler: image prompts become K' and V', and every forward pass gets its tensors.

`outer_sample` computes K' and V' before the base model is loaded and releases the adapter; `sampler_sample` learns
which conditioning is conditional; `apply_model` lays out the tensors of one forward pass in `transformer_options`,
outside of what a compiled model compiles.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..ipadapter_core import Given
from .models import Adapter

KEY = "image_prompt"  # ours in transformer_options, wrappers, callbacks and attachments
IMAGES = "image_prompt_kv"

COMBINE = ("concatenate", "average", "one for each latent")

# Names of the sampler's lists of conditionings whose chunks get the unconditional image tokens.
UNCONDITIONAL = re.compile("neg|uncond|empty")


@dataclass(frozen=True, eq=False)
class Reference:
    """An image prompt with all that Apply was told.

    inputs, unconditional: what the adapter's projection reads, of P pictures and of "no picture".
    layer_weights: checkpoint index to weight, layers that do nothing left out. mask: [M, h, w] or None.
    shortcut_scale: of FaceID plus v2. text_projection: the base's own, for adapters whose tokens go through it.
    """

    adapter: Adapter
    inputs: Given
    unconditional: Given
    layer_weights: Mapping[int, float]
    start_percent: float
    end_percent: float
    combine: str
    mask: Tensor | None
    shortcut_scale: float = 1.0
    text_projection: torch.nn.Module | None = None

    def image_tokens(self, inputs: Given) -> Tensor:
        """Image tokens [P, T, C] of these inputs, C the width that K' and V' read."""
        tokens = self.adapter.model.image_tokens(inputs, self.shortcut_scale)
        if self.text_projection is None:
            return tokens
        weight, bias = (value.to(tokens) for value in (self.text_projection.weight, self.text_projection.bias))
        return F.linear(tokens, weight, bias)


@dataclass(frozen=True)
class Chunk:
    """One conditioning of the sampler: its role, and the area of the latent that it covers (None: all)."""

    is_conditional: bool
    area: tuple[int, ...] | None


@dataclass(frozen=True)
class Tensors:
    """What a reference gives one forward pass: K', V' [B, T, D] by checkpoint index, mask [B, 1, h, w] or None."""

    layers: Mapping[int, tuple[Tensor, Tensor]]
    mask: Tensor | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A reference in a run of the sampler. kv: by role (conditional or not) and checkpoint index, [rows, T, D] each."""

    reference: Reference
    kv: Mapping[bool, Mapping[int, tuple[Tensor, Tensor]]]
    start_sigma: float
    end_sigma: float


@dataclass
class State:
    """One run of the sampler: what is known of it, and the tensors made so far."""

    latent_shape: tuple[int, ...]
    prepared: list[Prepared]
    chunks: dict[uuid.UUID, Chunk] = field(default_factory=dict)
    sigma: float | None = None
    made: dict[Any, dict[int, Tensors]] = field(default_factory=dict)

    @property
    def has_range(self) -> bool:
        return any(p.reference.start_percent > 0 or p.reference.end_percent < 1 for p in self.prepared)


class ImageRun:
    """The references on a model, and what happens around a run of the sampler. Immutable."""

    def __init__(self, references: tuple[Reference, ...] = ()) -> None:
        self.references = references

    def outer_sample(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Before the base is loaded: load each adapter, compute K' and V', release it."""
        guider = executor.class_obj
        model = guider.model_patcher
        dtype = model.model.get_dtype_inference()
        to_sigma = model.get_model_object("model_sampling").percent_to_sigma
        prepared = [
            Prepared(
                reference,
                keys_values(reference, model.load_device, dtype),
                float(to_sigma(reference.start_percent)),
                float(to_sigma(reference.end_percent)),
            )
            for reference in self.references
        ]
        guider.model_options["transformer_options"][KEY] = State(tuple(noise.shape), prepared)
        return executor(noise, *args, **kwargs)

    def sampler_sample(
        self, executor: Any, guider: Any, sigmas: Tensor, extra_args: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Give every conditioning an id of its own, and remember its role and area.

        Areas copy a positive conditioning, its id included, into the negative list: only now are the lists final.
        """
        state: State = extra_args["model_options"]["transformer_options"][KEY]
        named = {}
        for name, conditionings in guider.conds.items():
            named[name] = [{**conditioning, "uuid": uuid.uuid4()} for conditioning in conditionings]
            for conditioning in named[name]:
                is_conditional = not UNCONDITIONAL.search(name)
                state.chunks[conditioning["uuid"]] = Chunk(is_conditional, conditioning.get("area"))
        guider.conds = named
        return executor(guider, sigmas, extra_args, *args, **kwargs)

    def predict_noise(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Read the step's sigma, once a step and only where a reference starts late or ends early."""
        state: State = model_options["transformer_options"][KEY]
        if state.has_range:
            state.sigma = timestep.flatten()[0].item()
        return executor(x, timestep, model_options, *args, **kwargs)

    def apply_model(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
        transformer_options: Mapping[str, Any] = {}, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Hand a forward pass the tensors of its chunks."""
        options = {**transformer_options, IMAGES: tensors_of(transformer_options[KEY], x, transformer_options)}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


@torch.no_grad()
def keys_values(
    reference: Reference, device: torch.device, dtype: torch.dtype
) -> dict[bool, dict[int, tuple[Tensor, Tensor]]]:
    """K' and V' [rows, T, D] of a reference, for the conditional role (True) and the unconditional one, weights in V'.

    The adapter is loaded for this and released, so that no weight of it is held while the base runs.
    """
    adapter = reference.adapter
    comfy.model_management.load_models_gpu([adapter.patcher])
    try:
        device_of_adapter = adapter.patcher.load_device
        inputs = reference.inputs.to(device_of_adapter)
        if reference.combine == "average":
            inputs = inputs.mean()
        tokens = reference.image_tokens(inputs)
        empty = reference.image_tokens(reference.unconditional.to(device_of_adapter))
        if reference.combine == "concatenate":
            tokens = rearrange(tokens, "p t c -> 1 (p t) c")
            empty = empty.repeat(1, inputs.rows, 1)  # the same attention, as many tokens as the conditional
        return {
            role: {
                index: (k.to(device, dtype), (v * reference.layer_weights[index]).to(device, dtype))
                for index, (k, v) in adapter.model.keys_values(image_tokens, reference.layer_weights).items()
            }
            for role, image_tokens in ((True, tokens), (False, empty))
        }
    finally:
        comfy.model_management.unload_model_and_clones(adapter.patcher)


def tensors_of(state: State, x: Tensor, options: Mapping[str, Any]) -> dict[int, Tensors]:
    """The tensors of one forward pass by reference, made once for each different batch of chunks in a run."""
    chunks = tuple(state.chunks.get(key, Chunk(False, None)) for key in options["uuids"])
    rows = _rows(options, x.shape[0] // len(chunks))
    active = tuple(
        position
        for position, prepared in enumerate(state.prepared)
        if state.sigma is None or prepared.end_sigma <= state.sigma <= prepared.start_sigma
    )
    key = (chunks, rows, active, x.device)
    if key not in state.made:
        state.made[key] = {
            position: _lay_out(state.prepared[position], chunks, rows, state.latent_shape, x.device)
            for position in active
        }
    return state.made[key]


def _lay_out(
    prepared: Prepared,
    chunks: tuple[Chunk, ...],
    rows: tuple[int, ...],
    latent_shape: tuple[int, ...],
    device: torch.device,
) -> Tensors:
    def batch(index: int, part: int) -> Tensor:
        return torch.cat([_pick(prepared.kv[chunk.is_conditional][index][part], rows) for chunk in chunks]).to(device)

    mask = prepared.reference.mask
    return Tensors(
        {index: (batch(index, 0), batch(index, 1)) for index in prepared.reference.layer_weights},
        None if mask is None else _chunk_masks(mask, latent_shape, chunks, rows).to(device),
    )


def _rows(options: Mapping[str, Any], count: int) -> tuple[int, ...]:
    """Which latents of the whole batch a chunk holds: all, or a context window's (with the one before it, if added)."""
    window = options.get("context_window")
    if window is not None and window.dim == 0:
        anchor = getattr(window, "causal_anchor_index", None)
        return (*(() if anchor is None else (anchor,)), *window.index_list)
    indices = (options.get("ad_params") or {}).get("sub_idxs")  # AnimateDiff-Evolved's windows
    return tuple(indices) if indices is not None else tuple(range(count))


def _pick(values: Tensor, rows: tuple[int, ...]) -> Tensor:
    return values[[row % len(values) for row in rows]]


def _chunk_masks(
    mask: Tensor, latent_shape: tuple[int, ...], chunks: tuple[Chunk, ...], rows: tuple[int, ...]
) -> Tensor:
    """A mask [M, h, w] cut to the area of each chunk: [B, 1, h, w] in latent pixels."""
    whole = F.interpolate(rearrange(mask, "m h w -> m 1 h w").float(), latent_shape[-2:], mode="area")
    whole = _pick(whole, rows)
    parts = []
    for chunk in chunks:
        height, width, top, left = chunk.area or (*latent_shape[-2:], 0, 0)
        parts.append(whole[..., top : top + height, left : left + width])
    return torch.cat(parts)
