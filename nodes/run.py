"""Around a run of the sampler: image prompts become K' and V', and every forward pass gets its tensors.

`outer_sample` computes K' and V' before the base model is loaded and releases the adapter; `sampler_sample` learns which
conditioning is conditional; `apply_model` lays out the tensors of one forward pass in `transformer_options`, outside of
what a compiled model compiles.
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

from .adapters import Adapter

KEY = "image_prompt"  # ours in transformer_options, wrappers, callbacks and attachments
IMAGES = "image_prompt_kv"

COMBINE = ("concatenate", "average", "one for each latent")

# Names of the sampler's lists of conditionings whose chunks get the unconditional image tokens.
UNCONDITIONAL = re.compile("neg|uncond|empty")


@dataclass(frozen=True, eq=False)
class Reference:
    """An image prompt with all that Apply was told.

    features, unconditional: what the adapter's projection reads, [P, ...] and [1, ...] for P pictures.
    layer_weights: checkpoint index to weight, layers that do nothing left out. mask: [M, h, w] or None.
    """

    adapter: Adapter
    features: Tensor
    unconditional: Tensor
    layer_weights: Mapping[int, float]
    start_percent: float
    end_percent: float
    combine: str
    mask: Tensor | None


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


@dataclass
class _State:
    """One run of the sampler. `references`: by position, K' and V' as [rows, T, D] for each role."""

    latent_shape: tuple[int, ...]
    references: list[tuple[Reference, dict[bool, dict[int, tuple[Tensor, Tensor]]], tuple[float, float]]]
    chunks: dict[uuid.UUID, Chunk] = field(default_factory=dict)
    sigma: float | None = None
    made: dict[Any, dict[int, Tensors]] = field(default_factory=dict)

    @property
    def has_range(self) -> bool:
        return any(reference.start_percent > 0 or reference.end_percent < 1 for reference, _, _ in self.references)


class ImageRun:
    """The references on a model, and what happens around a run of the sampler. Immutable."""

    def __init__(self, references: tuple[Reference, ...] = ()) -> None:
        self.references = references

    def outer_sample(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Before the base is loaded: load each adapter, compute K' and V', release it."""
        guider = executor.class_obj
        model = guider.model_patcher
        sampling = model.get_model_object("model_sampling")
        references = []
        for reference in self.references:
            sigmas = (
                float(sampling.percent_to_sigma(reference.start_percent)),
                float(sampling.percent_to_sigma(reference.end_percent)),
            )
            kv = keys_values(reference, model.load_device, model.model.get_dtype_inference())
            references.append((reference, kv, sigmas))
        guider.model_options["transformer_options"][KEY] = _State(tuple(noise.shape), references)
        return executor(noise, *args, **kwargs)

    def sampler_sample(self, executor: Any, guider: Any, sigmas: Tensor, extra_args: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Give every conditioning an id of its own, and remember its role and area.

        Areas copy a positive conditioning, its id included, into the negative list: only now are the lists final.
        """
        state: _State = extra_args["model_options"]["transformer_options"][KEY]
        named = {}
        for name, conditionings in guider.conds.items():
            named[name] = [{**conditioning, "uuid": uuid.uuid4()} for conditioning in conditionings]
            for conditioning in named[name]:
                is_conditional = not UNCONDITIONAL.search(name)
                state.chunks[conditioning["uuid"]] = Chunk(is_conditional, conditioning.get("area"))
        guider.conds = named
        return executor(guider, sigmas, extra_args, *args, **kwargs)

    def predict_noise(self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Read the step's sigma, once a step and only where a reference starts late or ends early."""
        state: _State = model_options["transformer_options"][KEY]
        if state.has_range:
            state.sigma = timestep.flatten()[0].item()
        return executor(x, timestep, model_options, *args, **kwargs)

    def apply_model(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
        transformer_options: Mapping[str, Any] = {}, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Hand a forward pass the tensors of its chunks."""
        options = {**transformer_options, IMAGES: _tensors(transformer_options[KEY], x, transformer_options)}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


@torch.no_grad()
def keys_values(reference: Reference, device: torch.device, dtype: torch.dtype) -> dict[bool, dict[int, tuple[Tensor, Tensor]]]:
    """K' and V' [rows, T, D] of a reference, for the conditional role (True) and the unconditional one, weights in V'.

    The adapter is loaded for this and released, so that no weight of it is held while the base runs.
    """
    adapter = reference.adapter
    comfy.model_management.load_models_gpu([adapter.patcher])
    try:
        features, unconditional = (x.to(adapter.patcher.load_device) for x in (reference.features, reference.unconditional))
        if reference.combine == "average":
            features = features.mean(0, keepdim=True)
        tokens = adapter.model.image_tokens(features)
        empty = adapter.model.image_tokens(unconditional)
        if reference.combine == "concatenate":
            tokens = rearrange(tokens, "p t c -> 1 (p t) c")
            empty = empty.repeat(1, len(features), 1)  # the same attention, as many tokens as the conditional chunk
        return {
            role: {
                index: (k.to(device, dtype), (v * reference.layer_weights[index]).to(device, dtype))
                for index, (k, v) in adapter.model.keys_values(image_tokens, reference.layer_weights).items()
            }
            for role, image_tokens in ((True, tokens), (False, empty))
        }
    finally:
        comfy.model_management.unload_model_and_clones(adapter.patcher)


def _tensors(state: _State, x: Tensor, options: Mapping[str, Any]) -> dict[int, Tensors]:
    """The tensors of one forward pass by reference, made once for each different batch of chunks in a run."""
    chunks = tuple(state.chunks.get(key, Chunk(False, None)) for key in options["uuids"])
    rows = _rows(options, x.shape[0] // len(chunks))
    active = tuple(
        position
        for position, (_, _, (start, end)) in enumerate(state.references)
        if state.sigma is None or end <= state.sigma <= start
    )
    key = (chunks, rows, active, x.device, x.shape)
    if key not in state.made:
        state.made[key] = {
            position: Tensors(
                {
                    index: tuple(torch.cat([_pick(kv[chunk.is_conditional][index][part], rows) for chunk in chunks]).to(x.device)
                                 for part in (0, 1))
                    for index in reference.layer_weights
                },
                None if reference.mask is None else _chunk_masks(reference.mask, state.latent_shape, chunks, rows).to(x.device),
            )
            for position, (reference, kv, _) in enumerate(state.references)
            if position in active
        }  # fmt: skip
    return state.made[key]


def _rows(options: Mapping[str, Any], count: int) -> tuple[int, ...]:
    """Which latents of the whole batch a chunk holds: all, or a context window's."""
    window = options.get("context_window")
    if window is not None and window.dim == 0:
        return tuple(window.index_list)
    indices = (options.get("ad_params") or {}).get("sub_idxs")  # AnimateDiff-Evolved's windows
    return tuple(indices) if indices is not None else tuple(range(count))


def _pick(values: Tensor, rows: tuple[int, ...]) -> Tensor:
    return values[[row % len(values) for row in rows]]


def _chunk_masks(mask: Tensor, latent_shape: tuple[int, ...], chunks: tuple[Chunk, ...], rows: tuple[int, ...]) -> Tensor:
    """A mask [M, h, w] cut to the area of each chunk: [B, 1, h, w] in latent pixels."""
    whole = F.interpolate(rearrange(mask, "m h w -> m 1 h w").float(), latent_shape[-2:], mode="area")
    whole = _pick(whole, rows)
    parts = []
    for chunk in chunks:
        height, width, top, left = chunk.area or (*latent_shape[-2:], 0, 0)
        parts.append(whole[..., top : top + height, left : left + width])
    return torch.cat(parts)
