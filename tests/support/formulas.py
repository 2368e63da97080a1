"""The controls of image prompts as formulas: what a UNet predicts, written without any of the product's code.

Cross-attention of diffusers' own UNet is replaced by the formula; image tokens are the package's `ip-adapter`. So this
file is the specification of layers, scaling, ways to combine, negatives, masks, curves, frames and rescale.

Shapes: B batch of a call (chunks times latents), N positions, T image tokens, D width of a layer, P pictures, Q
negatives, C width of image tokens, H heads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support import oracles

MERGES = ("average", "norm average", "add", "subtract", "max", "min")


@dataclass(frozen=True, eq=False)
class Said:
    """A reference, as its settings say.

    weights: the adapter's file. pictures: features [P, ...]. nothing: those of "no picture" [1, ...], or of negative
    pictures [Q, ...]. shares: attention module in forward order to its share of the weight; None: all of it.
    swapped: modules where the picture acts in unconditional predictions and nothing in conditional ones.
    curve: a factor by progress, 0 to 1; None: 1. mask: [M, h, w]. frames: a factor for each latent, over and over.
    """

    weights: dict[str, Tensor]
    pictures: Tensor
    nothing: Tensor
    weight: float = 1.0
    shares: Mapping[int, float] | None = None
    swapped: frozenset[int] = frozenset()
    combine: str = "concatenate"
    picture_weights: tuple[float, ...] = ()
    scaling: str = "V only"
    curve: Callable[[float], float] | None = None
    mask: Tensor | None = None
    frames: tuple[float, ...] = ()
    rescale: float = 0.0


@dataclass(frozen=True, eq=False)
class Step:
    """A call of the UNet: role of each chunk (0 conditional), the whole batch's number of each latent in a chunk, the
    height and width of the latents, and the progress of the sampling."""

    roles: tuple[int, ...]
    latents: tuple[int, ...]
    size: tuple[int, int]
    progress: float

    @functools.cached_property
    def rows(self) -> list[tuple[int, int]]:
        """(role, latent) of each of the B rows."""
        return [(role, latent) for role in self.roles for latent in self.latents]


def merged(features: Tensor, how: str, weights: Sequence[float] = ()) -> Tensor:
    """One picture's features [1, ...] of several. One picture alone is only weighted."""
    w = torch.tensor(weights or [1.0] * len(features)).reshape(-1, *[1] * (features.ndim - 1))
    if how in ("average", "norm average"):
        if how == "norm average" and len(features) > 1:
            features = features / features.norm(dim=-1, keepdim=True)
        return (features * w).sum(0, keepdim=True) / w.sum()
    x = features * w
    if how == "subtract":
        return x[:1] - (x[1:].mean(0, keepdim=True) if len(x) > 1 else 0)
    return {"add": x.sum, "max": x.amax, "min": x.amin}[how](0, keepdim=True)


@functools.lru_cache(maxsize=64)
def tokens(said: Said) -> tuple[Tensor, Tensor]:
    """Image tokens [rows, T, C] of the pictures and of what stands against them, one row or one for each picture."""
    pictures, against = said.pictures, said.nothing
    if said.combine in MERGES:
        pictures, against = merged(pictures, said.combine, said.picture_weights), merged(against, said.combine)
    else:  # negative j stands against picture j; the last one is repeated, more are left out
        against = against[[min(j, len(against) - 1) for j in range(len(pictures))]]
    project = oracles.package_projection(said.weights)
    assert project is not None
    with torch.no_grad():
        found = project(pictures), project(against)
    if said.combine == "concatenate":
        return found[0].flatten(0, 1)[None], found[1].flatten(0, 1)[None]
    return found


def scaled(k: Tensor, v: Tensor, w: Tensor | float, scaling: str, num_pictures: int) -> tuple[Tensor, Tensor]:
    """K' and V' [T, D] with the weight in them, a number or one for each token [T, 1]."""
    c = k.shape[-1] / 1280
    if scaling == "V only":
        return k, v * w
    if scaling == "K+V":
        return k * w, v * w
    if scaling == "K+V w/ C penalty":
        return k * w * c, v * w * c
    m = torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in v.chunk(num_pictures)])
    return k * w * c, (v - m) + m * w * c


def keys_values(said: Said, index: int, t: int, role: int, latent: int) -> tuple[Tensor, Tensor]:
    """K', V' [T, D] of one row in the layer `index`, of the attention module t."""
    is_concatenated = said.combine == "concatenate"
    picture = 0 if is_concatenated or said.combine in MERGES else latent % len(said.pictures)
    side = 0 if t in said.swapped else role
    c = tokens(said)[side][picture]
    k, v = (c @ said.weights[f"ip_adapter.{index}.to_{name}_ip.weight"].T for name in "kv")
    if t in said.swapped and role == 0:  # tokens of zero
        k, v = torch.zeros_like(k), torch.zeros_like(v)
    w: Tensor | float = said.weight * (1.0 if said.shares is None else said.shares.get(t, 0.0))
    if said.frames:
        w = w * said.frames[latent % len(said.frames)]
    if said.picture_weights and is_concatenated:
        w = w * torch.tensor(said.picture_weights).repeat_interleave(len(c) // len(said.pictures))[:, None]
    elif said.picture_weights and said.combine not in MERGES:
        w = w * said.picture_weights[picture]
    return scaled(k, v, w, said.scaling, len(said.pictures) if is_concatenated else 1)


def where(said: Said, step: Step, positions: int) -> Tensor | float:
    """The mask [B, N, 1] of a layer: brought to the latents, then to the layer's grid, by area."""
    if said.mask is None:
        return 1.0
    grid = step.size
    while math.prod(grid) != positions:
        grid = (math.ceil(grid[0] / 2), math.ceil(grid[1] / 2))
    on_latents = F.adaptive_avg_pool2d(said.mask[:, None].float(), step.size)
    on_grid = F.adaptive_avg_pool2d(on_latents, grid).flatten(1)[..., None]
    return on_grid[[latent % len(on_grid) for _, latent in step.rows]]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V by heads: q [B, N, D], k and v [B, T, D]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def decoupled(
    q: Tensor, k: Tensor, v: Tensor, heads: int, site: tuple[int, int], references: Sequence[Said], step: Step
) -> Tensor:
    """Attention of the text, then of every reference in turn. site: checkpoint index and attention module."""
    index, t = site
    out = text = attention(q, k, v, heads)
    for said in references:
        factor = 1.0 if said.curve is None else said.curve(step.progress)
        if factor == 0 or (said.shares is not None and not said.shares.get(t)):
            continue
        # Rows that are alike are computed once.
        made = functools.cache(functools.partial(keys_values, said, index, t))
        pairs = [made(role, latent) for role, latent in step.rows]
        images = attention(q, torch.stack([k for k, _ in pairs]), torch.stack([v for _, v in pairs]), heads)
        out = out + factor * where(said, step, q.shape[1]) * images
        if said.rescale:
            moved = out * text.norm(dim=-1, keepdim=True) / out.norm(dim=-1, keepdim=True)
            out = out + said.rescale * (moved - out)
    return out


class Processor:
    """diffusers' door for an attention layer, with the formula behind it."""

    def __init__(self, site: tuple[int, int], references: Sequence[Said], step: Step) -> None:
        self.site, self.references, self.step = site, references, step

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        q, k, v = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        out = decoupled(q, k, v, attn.heads, self.site, self.references, self.step)
        return attn.to_out[0](out)


@functools.cache
def sites(unet: Any) -> dict[str, tuple[int, int]]:
    """Cross-attention layers of diffusers' UNet by name: checkpoint index, and attention module in forward order.

    A file counts all attention layers down, up, middle; the attention modules of it run down, middle, up.
    """
    names = [name for name, _ in unet.named_modules() if name.endswith((".attn1", ".attn2"))]
    order = ("down_blocks", "up_blocks", "mid_block")
    numbered = sorted(names, key=lambda name: order.index(name.split(".")[0]))  # stable: each part stays in order
    forward = sorted(names, key=lambda name: ("down_blocks", "mid_block", "up_blocks").index(name.split(".")[0]))
    modules = list(dict.fromkeys(name.split(".transformer_blocks")[0] for name in forward))
    return {
        name: (index, modules.index(name.split(".transformer_blocks")[0]))
        for index, name in enumerate(numbered)
        if name.endswith(".attn2")
    }


@contextmanager
def installed(unet: Any, references: Sequence[Said], step: Step) -> Iterator[None]:
    """The formula in all cross-attention layers of diffusers' UNet, and afterwards what was there."""
    before = {name: unet.get_submodule(name).processor for name in sites(unet)}
    try:
        for name, site in sites(unet).items():
            unet.get_submodule(name).set_processor(Processor(site, references, step))
        yield
    finally:
        for name, processor in before.items():
            unet.get_submodule(name).set_processor(processor)


def progress_of(sigma: float, sigmas: Tensor) -> float:
    """How far the sampling is at a sigma, by the table of a discrete schedule: 1 less its time over the last one's."""
    time = np.interp(math.log(sigma), np.log(sigmas.double().numpy()), np.arange(len(sigmas)))
    return float(1 - time / (len(sigmas) - 1))


def predict(unet: Any, call: Mapping[str, Any], references: Sequence[Said], sigmas: Tensor) -> Tensor:
    """What the formula predicts for a call of ComfyUI's UNet that `models.Calls` recorded.

    sigmas: the model's table. Latents are numbered as the call's context window says, else from 0.
    """
    options, roles, x = call["options"], tuple(call["roles"]), call["x"]
    window = options.get("context_window")
    assert window is None or window.dim == 0, "a window along height or width cuts the mask"
    known = (options.get("ad_params") or {}).get("sub_idxs") if window is None else window.index_list
    latents = tuple(range(len(x) // len(roles)) if known is None else known)
    progress = progress_of(float(options["sigmas"][0]), sigmas)
    added = None
    if call["y"] is not None:  # SDXL: the pooled text, then six sizes, each embedded in 256
        y, (height, width) = call["y"], (8.0 * x.shape[-2], 8.0 * x.shape[-1])
        sizes = torch.tensor([[height, width, 0, 0, height, width]])
        added = {"text_embeds": y[:, :1280], "time_ids": sizes.expand(len(y), -1)}
    step = Step(roles, latents, (x.shape[-2], x.shape[-1]), progress)
    with installed(unet, references, step), torch.inference_mode():
        return unet(x, call["t"], encoder_hidden_states=call["context"], added_cond_kwargs=added).sample
