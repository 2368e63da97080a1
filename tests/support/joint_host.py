"""A second kind of model for the door: a tiny MMDiT, and an adapter whose K' and V' depend on the step.

As SD3.5's: keys include the base's own, with biases and a norm of heads; its weights are in use in every step.
Shapes: B batch, T text tokens, N positions, P pictures, D width, H heads, d head width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support import host, models

core = models.core
doors, layout = host.part("nodes.hosts.host"), host.part("nodes.layout")

HEADS, HEAD, PATCH, LATENT, TEXT, FEATURES, TOKENS = 2, 64, 2, 8, 48, 24, 3
WIDTH = HEADS * HEAD


@functools.cache
def joint_model() -> Any:
    """ComfyUI's SD3 model of two thin blocks, seeded random weights."""
    config = {
        "in_channels": 16, "patch_size": PATCH, "depth": HEADS, "input_size": None, "adm_in_channels": 32,
        "context_size": TEXT, "num_patches": 64, "pos_embed_max_size": 8, "pos_embed_scaling_factor": None,
        "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": TEXT, "out_features": WIDTH},
        },
        "qk_norm": "rms", "dtype": torch.float32,
    }  # fmt: skip
    sd3 = models.comfy.supported_models.SD3(config)
    sd3.unet_config = config
    built = sd3.get_model({}, device="cpu")
    torch.manual_seed(0)
    for value in (*built.diffusion_model.parameters(), *built.diffusion_model.buffers()):
        torch.nn.init.normal_(value, std=0.1)
    device = models.comfy.model_management.get_torch_device()
    return models.comfy.model_patcher.ModelPatcher(built, load_device=device, offload_device=torch.device("cpu"))


class TimedAdapter(nn.Module):
    """Image tokens that depend on the step; K' and V' of each block with biases and a norm of heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.proj, self.time = nn.Linear(FEATURES, TOKENS * WIDTH), nn.Linear(2, WIDTH)
        self.to_k, self.to_v = (nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2)) for _ in range(2))
        self.norm = nn.ModuleList(nn.RMSNorm(HEAD, eps=1e-6) for _ in range(2))
        self.requires_grad_(False)

    def keys_values(self, features: Tensor, time: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features [P, F] at a time [1] to K', V' [P, 3, D] of each block."""
        scale = self.time(torch.cat([torch.sin(time / 200), torch.cos(time / 200)]))
        tokens = self.proj(features).unflatten(1, (TOKENS, WIDTH)) * (1 + 3 * scale)
        pairs = []
        for to_k, to_v, norm in zip(self.to_k, self.to_v, self.norm):
            k = norm(to_k(tokens).unflatten(-1, (HEADS, HEAD))).flatten(-2)
            pairs.append((k, 2 * to_v(tokens)))
        return pairs


def timed_adapter() -> Any:
    """What the nodes hold of an adapter: its name, what it reads, and its weights for the memory manager."""
    spec = core.AdapterSpec("timed", "pooled", FEATURES, TEXT, TOKENS, (0, 1), core.LinearProjection())
    model = TimedAdapter()
    device = models.comfy.model_management.get_torch_device()
    patcher = models.comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))
    return SimpleNamespace(name="timed.safetensors", spec=spec, lora={}, model=model, patcher=patcher)


class Timed:
    """K' and V' of a step. Weights can't be folded into V' when the base's own values are beside it: factors."""

    is_constant = False

    def __init__(self, reference: Any, model: Any) -> None:
        self.reference = reference
        self.timestep = model.get_model_object("model_sampling").timestep

    def at(self, sigma: Tensor) -> Mapping[Any, Mapping[int, Any]]:
        both = {layout.Role.CONDITIONAL: self.reference.inputs, layout.Role.UNCONDITIONAL: self.reference.unconditional}
        found = {}
        for role, inputs in both.items():
            pairs = self.reference.adapter.model.keys_values(inputs.features.to(sigma), self.timestep(sigma))
            found[role] = {
                index: core.ImageKV(
                    *pairs[index], sigma.new_full((len(inputs.features), 1, 1), self.weight(index, role))
                )
                for index in self.reference.layer_weights
            }
        return found

    def weight(self, index: int, role: Any) -> float:
        return self.reference.weight_of(index, role)


class JointAttention:
    """The attention of one block: whatever it was, and image attention added to the positions of the picture."""

    def __init__(self, index: int, previous: Any, options: Mapping[str, Any]) -> None:
        self.index, self.previous, self.options = index, previous, options

    def __call__(self, func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Tensor:
        call = func if self.previous is None else partial(self.previous, func)
        out = call(q, k, v, heads, *args, **kwargs)
        height, width = _grid(self.options)
        size = height * width
        q_image = q[:, -size:]
        k_image, v_image = (core.split_heads(x[:, -size:].flatten(2), heads) for x in (k, v))
        images = [
            image._replace(k=torch.cat([k_image, image.k], 2), v=torch.cat([v_image, image.v], 2))
            for image in doors.images_of(self.options, self.index, q_image, _grid)
        ]
        added = core.add_image_attention(out[:, -size:], q_image, images, core.attention_by_heads)
        return torch.cat([out[:, :-size], added], 1)


GRID = "joint_grid"


def _grid(options: Mapping[str, Any]) -> tuple[int, int]:
    height, width = options[GRID]
    return height, width


class JointBlock:
    """Around one block: whatever was around it before, with an attention of ours inside."""

    def __init__(self, index: int, previous: Any) -> None:
        self.index, self.previous = index, previous

    def __call__(self, args: dict[str, Any], extra: dict[str, Any]) -> Any:
        options = dict(args["transformer_options"])
        attention = JointAttention(self.index, options.get("optimized_attention_override"), args["transformer_options"])
        options["optimized_attention_override"] = attention
        inside = {**args, "transformer_options": options}
        return extra["original_block"](inside) if self.previous is None else self.previous(inside, extra)


class Joint(doors.Host):  # type: ignore[name-defined, misc]
    """MMDiTs as SD3's."""

    def sites(self, model: Any) -> list[Any]:
        blocks = getattr(model.get_model_object("diffusion_model"), "joint_blocks", ())
        return [
            core.Site(i, ("joint", i), f"transformer_blocks.{i}.attn", f"joint_blocks.{i}.x_block.attn")
            for i in range(len(blocks))
        ]

    def heads(self, model: Any) -> dict[int, int]:
        return {site.index: HEADS for site in self.sites(model)}

    def check(self, adapter: Any, model: Any, sites: list[Any]) -> None:
        if adapter.spec.layers != tuple(site.index for site in sites):
            raise ValueError(f"the adapter {adapter.name} has other blocks than the model: load another adapter")

    def keys_values(self, references: Sequence[Any], model: Any) -> list[Timed]:
        return [Timed(reference, model) for reference in references]

    def put(self, clone: Any, reference: Any, sites: list[Any], position: int) -> Any:
        held = clone.get_additional_models_with_key(layout.KEY)
        clone.set_additional_models(layout.KEY, [*held, reference.adapter.patcher])
        return clone

    def bind(self, options: Mapping[str, Any], x: Tensor, kept: dict[Any, Any]) -> Mapping[str, Any]:
        indices = {index for tensors in options[layout.IMAGES].values() for index in tensors.layers}
        replace = options.get("patches_replace", {})
        blocks = dict(replace.get("dit", {}))
        for index in indices:
            key = ("double_block", index)
            previous = blocks.get(key)
            blocks[key] = kept.setdefault((index, id(previous)), JointBlock(index, previous))
        grid = tuple((size + 1) // PATCH for size in x.shape[-2:])
        return {**options, GRID: grid, "patches_replace": {**replace, "dit": blocks}}


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) v by heads, [B, N, D]."""
    q, k, v = (x.unflatten(-1, (HEADS, HEAD)).transpose(1, 2) for x in (q, k, v))
    return ((q @ k.transpose(-1, -2) / HEAD**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


def block_by_formula(block: nn.Module, images: Any, own: float = 1.0, after: float = 1.0) -> Any:
    """A joint block's forward, written out: text and picture in one softmax, and what each image prompt adds.

    images: (K', V' [B, 3, D], factor [B, N or 1, 1]) each. own: a factor that another pack puts on the base's own
    attention; after: one on the picture after the block.
    """

    def forward(context: Tensor, x: Tensor, c: Tensor, **_: Any) -> tuple[Tensor | None, Tensor]:
        (q_text, k_text, v_text), rest_text = block.context_block.pre_attention(context, c)
        (q, k, v), rest = block.x_block.pre_attention(x, c)
        v_text, v = v_text.flatten(2), v.flatten(2)
        whole = [torch.cat(pair, 1) for pair in ((q_text, q), (k_text, k), (v_text, v))]
        text, image = (own * written_out(*whole)).split([q_text.shape[1], q.shape[1]], 1)
        for more_k, more_v, factor in images:
            image = image + factor * written_out(q, torch.cat([k, more_k], 1), torch.cat([v, more_v], 1))
        context = None if block.context_block.pre_only else block.context_block.post_attention(text, *rest_text)
        return context, after * block.x_block.post_attention(image, *rest)

    return forward


def mask_on(grid: tuple[int, int], mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask [1, h, w] at the positions of a grid: [1, N, 1]."""
    latent = F.interpolate(mask[:, None], size, mode="area")
    return F.interpolate(latent, grid, mode="area").reshape(1, -1, 1)
