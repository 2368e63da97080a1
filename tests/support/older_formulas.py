"""What the most used older pack computes in the UNet, as formulas written from its behaviour, with no code of ours.

diffusers' own UNet is called, its cross-attention replaced by the formula. An `Application` is one adapter with its
image tokens; `older_features` makes these. `exact` is what the added input of the older nodes asks for.

Shapes: B rows of a call (chunks times latents), N positions, T image tokens, D width of a layer, R rows of tokens (one,
or one for each picture of a batch that is unfolded), C width of image tokens.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MIDDLE = {16: 6, 11: 4}  # by the number of attention modules
EASES = {
    "linear": lambda x: 1.0,
    "ease in": lambda x: 0.05 + 0.95 * (1 - x),
    "ease out": lambda x: 0.05 + 0.95 * x,
    "ease in-out": lambda x: 0.05 + 0.95 * (1 - abs(2 * x - 1)),
    "reverse in-out": lambda x: 0.05 + 0.95 * abs(2 * x - 1),
}


@dataclass(frozen=True, eq=False)
class Application:
    """One adapter, applied once.

    weights: its file, flat. cond, uncond, composition: image tokens [R, T, C]. weight: a number, or one for each frame.
    boost, composition_weight: None where the node has no such input. layer_weights: the text of that input.
    pictures: how many are concatenated in T. start, end: percent of the sampling.
    """

    weights: dict[str, Tensor]
    cond: Tensor
    uncond: Tensor
    composition: Tensor | None = None
    weight: float | Sequence[float] = 1.0
    weight_type: str = "linear"
    boost: float | None = None
    composition_weight: float | None = None
    layer_weights: str = ""
    scaling: str = "V only"
    mask: Tensor | None = None
    start: float = 0.0
    end: float = 1.0
    unfold: bool = False
    pictures: int = 1
    exact: bool = False

    @property
    def modules(self) -> int:
        """L, the number of attention modules."""
        return 11 if any(key.startswith("ip_adapter.101.") for key in self.weights) else 16

    @property
    def is_sdxl(self) -> bool:
        return self.weights["ip_adapter.1.to_k_ip.weight"].shape[1] == 2048

    @property
    def content(self) -> tuple[int, ...]:
        """Modules that hold the composition."""
        return (3,) if self.is_sdxl else (4, 5)


def named(said: Application, w: float) -> dict[int, float] | None:
    """Weight types that name their layers: module to weight; None where the type is none of these."""
    is_sdxl, kind = said.is_sdxl, said.weight_type
    boost = w if said.boost is None else said.boost
    wc = 1.0 if said.composition_weight is None else said.composition_weight
    style = dict.fromkeys((6,) if is_sdxl else (0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15), w)
    every = dict.fromkeys(range(said.modules), w)
    quarter = {3: 1.0} if is_sdxl else {4: 0.25, 5: 1.0}
    if kind == "style transfer":
        return style
    if kind == "composition":
        return {t: w * part for t, part in quarter.items()}
    if kind == "strong style transfer":
        return {t: value for t, value in every.items() if t not in said.content}
    if kind == "style and composition":
        return style | {t: wc * part for t, part in quarter.items()}
    if kind == "strong style and composition":
        return every | dict.fromkeys(said.content, wc)
    if kind == "style transfer precise":
        return style | {t: boost * part for t, part in quarter.items()}
    if kind == "composition precise":
        if is_sdxl:
            return dict.fromkeys(every, 0.1 * boost) | {3: w, 6: boost}
        return dict.fromkeys(every, boost) | dict.fromkeys((6, 7, 8), 0.1 * boost) | {4: 0.25 * w, 5: w}
    return None


def layer_weight(said: Application, t: int, w: float) -> float:
    """The weight of the attention module t."""
    length, middle = said.modules, MIDDLE[said.modules]
    if t == middle and not said.exact:
        return 0.0
    if said.layer_weights.strip():
        chosen = dict(part.split(":") for part in said.layer_weights.split(","))
        return w * float({int(key): value for key, value in chosen.items()}.get(t, 0.0))
    found = named(said, w)
    if found is not None:
        return found.get(t, 0.0)
    section = "input" if t < middle else "middle" if t == middle else "output"
    if said.weight_type.startswith("weak "):
        return w * (0.2 if said.weight_type == f"weak {section}" else 1.0)
    if said.weight_type == "strong middle":
        return w * (1.0 if section == "middle" else 0.2)
    return w * EASES[said.weight_type](t / length)


def is_swapped(said: Application, t: int) -> bool:
    """Whether the unconditional prediction gets the picture in module t, and the conditional one zeros."""
    if said.weight_type == "style transfer precise":
        return t in said.content
    return said.weight_type == "composition precise" and t not in said.content


def tokens_of(said: Application, t: int, role: int, row: int) -> Tensor:
    """Image tokens [T, C] that one row of a call gets in module t."""
    if is_swapped(said, t):
        return torch.zeros_like(said.cond[row]) if role == 0 else said.cond[row]
    if role == 0 and said.composition is not None and said.is_sdxl and t == 3:
        return said.composition[row]
    return (said.uncond if role else said.cond)[row]


def scaled(k: Tensor, v: Tensor, w: float, scaling: str, pictures: int) -> tuple[Tensor, Tensor]:
    """K', V' [T, D] with the weight in them."""
    u = w * k.shape[-1] / 1280
    if scaling == "V only":
        return k, v * w
    if scaling == "K+V":
        return k * w, v * w
    if scaling == "K+V w/ C penalty":
        return k * u, v * u
    m = v.unflatten(0, (pictures, -1)).mean(1, keepdim=True).expand(-1, len(v) // pictures, -1).flatten(0, 1)
    return k * u, (v - m) + m * u


@dataclass(frozen=True)
class Step:
    """A call of the UNet: role of each chunk, number of latents in a chunk, which frames these are among how many
    (AnimateDiff's windows), height and width of the latents, sigma."""

    roles: tuple[int, ...]
    frames: tuple[int, ...]
    length: int
    size: tuple[int, int]
    sigma: float


def pick(values: Any, number: int, exact: bool) -> Any:
    """The value of a frame: the last is used again, or all are gone through again."""
    return values[number % len(values) if exact else min(number, len(values) - 1)]


def guessed_grid(size: tuple[int, int], positions: int) -> tuple[int, int]:
    """Rows and columns of a layer, as the older pack takes them from the number of its positions."""
    rows = int(size[0] / math.sqrt(size[0] * size[1] / positions))
    rows += positions % rows != 0
    return rows, positions // rows


def own_grid(size: tuple[int, int], positions: int) -> tuple[int, int]:
    while size[0] * size[1] != positions:
        size = (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
    return size


def mask_of(said: Application, step: Step, positions: int) -> Tensor:
    """The mask [latents of a chunk, N, 1] on a layer's positions."""
    if said.mask is None:
        return torch.ones(len(step.frames), 1, 1)
    masks = said.mask[:, None].float()
    if said.exact:
        masks = F.adaptive_avg_pool2d(masks, step.size)
        flat = F.adaptive_avg_pool2d(masks, own_grid(step.size, positions)).flatten(1)
    else:
        flat = F.interpolate(masks, guessed_grid(step.size, positions), mode="bilinear").flatten(1)
        short = positions - flat.shape[1]
        flat = F.pad(flat, (short // 2, short - short // 2))
    return torch.stack([pick(flat, frame, said.exact) for frame in step.frames])[..., None]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V by heads: q [B, N, D], k and v [B, T, D]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return ((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v).transpose(1, 2).flatten(2)


def addend(said: Application, q: Tensor, heads: int, site: tuple[int, int], step: Step) -> Tensor | float:
    """What one application adds to the text's attention in the layer `site`: checkpoint index, attention module."""
    index, t = site
    matrices = [said.weights[f"ip_adapter.{index}.to_{name}_ip.weight"].T for name in "kv"]
    numbers = [said.weight] if isinstance(said.weight, (int, float)) else list(said.weight)
    weights = [layer_weight(said, t, pick(numbers, frame, said.exact) if said.unfold else numbers[0])
               for frame in step.frames]  # fmt: skip
    if not any(weights):
        return 0.0

    @functools.cache
    def made(role: int, row: int, w: float) -> tuple[Tensor, Tensor]:
        c = tokens_of(said, t, role, row)
        return scaled(c @ matrices[0], c @ matrices[1], w, said.scaling, said.pictures)

    order = list(range(len(said.cond)))
    rows = [pick(order, frame, said.exact) if said.unfold else 0 for frame in step.frames]
    pairs = [made(role, row, w) for role in step.roles for row, w in zip(rows, weights)]
    out = attention(q, torch.stack([k for k, _ in pairs]), torch.stack([v for _, v in pairs]), heads)
    is_on = torch.tensor([float(w != 0) for _ in step.roles for w in weights])[:, None, None]
    return out * is_on * mask_of(said, step, q.shape[1]).repeat(len(step.roles), 1, 1)


class Processor:
    """diffusers' door for an attention layer, with the formula behind it."""

    def __init__(self, site: tuple[int, int], active: Sequence[Application], step: Step) -> None:
        self.site, self.active, self.step = site, active, step

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        q = attn.to_q(hidden_states)
        out = attention(q, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), attn.heads)
        for said in self.active:  # the sum, in order of application
            out = out + addend(said, q, attn.heads, self.site, self.step)
        return attn.to_out[0](out)


@functools.cache
def sites(unet: Any) -> dict[str, tuple[int, int]]:
    """Cross-attention layers of diffusers' UNet by name: index in a file (which counts down, up, middle, self-attention
    too), and attention module in forward order."""
    names = [name for name, _ in unet.named_modules() if name.endswith((".attn1", ".attn2"))]
    parts = ("down_blocks", "mid_block", "up_blocks")
    in_file = sorted(names, key=lambda name: (parts[0], parts[2], parts[1]).index(name.split(".")[0]))
    forward = sorted(names, key=lambda name: parts.index(name.split(".")[0]))
    modules = list(dict.fromkeys(name.split(".transformer_blocks")[0] for name in forward))
    return {
        name: (index, modules.index(name.split(".transformer_blocks")[0]))
        for index, name in enumerate(in_file)
        if name.endswith(".attn2")
    }


@contextmanager
def installed(unet: Any, active: Sequence[Application], step: Step) -> Iterator[None]:
    before = {name: unet.get_submodule(name).processor for name in sites(unet)}
    try:
        for name, site in sites(unet).items():
            unet.get_submodule(name).set_processor(Processor(site, active, step))
        yield
    finally:
        for name, processor in before.items():
            unet.get_submodule(name).set_processor(processor)


def predict(unet: Any, call: Mapping[str, Any], applications: Sequence[Application], to_sigma: Any) -> Tensor:
    """What the formula predicts for a call of ComfyUI's UNet that `models.Calls` recorded.

    to_sigma: percent to sigma, of the model's own schedule.
    """
    options, roles, x = call["options"], tuple(call["roles"]), call["x"]
    latents, window = len(x) // len(roles), options.get("ad_params")
    frames = tuple(window["sub_idxs"]) if window else tuple(range(latents))
    if any(said.exact for said in applications) and "context_window" in options:
        frames = tuple(options["context_window"].index_list)  # unknown to the older pack
    sigma = float(options["sigmas"][0])
    step = Step(roles, frames, window["full_length"] if window else latents, (x.shape[-2], x.shape[-1]), sigma)
    active = [said for said in applications if to_sigma(said.end) <= sigma <= to_sigma(said.start)]
    added = None
    if call["y"] is not None:  # SDXL: the pooled text, then six sizes
        height, width = 8.0 * x.shape[-2], 8.0 * x.shape[-1]
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(x), -1)
        added = {"text_embeds": call["y"][:, :1280], "time_ids": sizes}
    with installed(unet, active, step), torch.inference_mode():
        return unet(x, call["t"], encoder_hidden_states=call["context"], added_cond_kwargs=added).sample
