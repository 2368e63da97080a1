"""Two independent implementations to agree with: the PyPI package `ip-adapter` and diffusers' own loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

# The package imports a class that diffusers has moved since.
diffusers.utils.logging.set_verbosity_error()
diffusers.pipelines.controlnet.MultiControlNetModel = diffusers.MultiControlNetModel

from ip_adapter.attention_processor import IPAttnProcessor2_0  # noqa: E402
from ip_adapter.ip_adapter import ImageProjModel  # noqa: E402
from ip_adapter.resampler import Resampler  # noqa: E402


def group(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """One group of a flat adapter, `image_proj` or `ip_adapter`, without its prefix."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def package_projection(weights: dict[str, Tensor]) -> nn.Module:
    """The package's projection with the adapter's weights."""
    proj = group(weights, "image_proj")
    if "latents" in proj:
        _, queries, dim = proj["latents"].shape
        depth = len({key.split(".")[1] for key in proj if key.startswith("layers.")})
        model: nn.Module = Resampler(
            dim=dim, depth=depth, dim_head=64, heads=proj["layers.0.0.to_q.weight"].shape[0] // 64, num_queries=queries,
            embedding_dim=proj["proj_in.weight"].shape[1], output_dim=proj["proj_out.weight"].shape[0],
            ff_mult=proj["layers.0.1.1.weight"].shape[0] // dim,
        )  # fmt: skip
    else:
        context = proj["norm.weight"].shape[0]
        rows, width = proj["proj.weight"].shape
        model = ImageProjModel(context, width, rows // context)
    model.load_state_dict(proj)
    return model.eval().requires_grad_(False)


@contextmanager
def package(unet: Any, weights: dict[str, Tensor], scale: float) -> Iterator[Any]:
    """predict(x, t, text, features, added=None) with the package's attention processors in diffusers' UNet."""
    projection = package_projection(weights)
    kv = group(weights, "ip_adapter")
    num_tokens = projection(torch.zeros(_feature_shape(weights))).shape[1]
    processors = {}
    for index, (name, old) in enumerate(unet.attn_processors.items()):
        key = f"{index}.to_k_ip.weight"
        if key not in kv:
            processors[name] = old
            continue
        width, context = kv[key].shape
        processors[name] = IPAttnProcessor2_0(width, context, scale=scale, num_tokens=num_tokens)
        processors[name].load_state_dict(
            {k.removeprefix(f"{index}."): v for k, v in kv.items() if k.startswith(f"{index}.")}
        )
    unet.set_attn_processor(processors)

    def predict(x: Tensor, t: Tensor, text: Tensor, features: Tensor, added: Any = None, **extra: Any) -> Tensor:
        states = torch.cat([text, projection(features)], dim=1)
        return unet(x, t, encoder_hidden_states=states, added_cond_kwargs=added, **extra).sample

    try:
        with torch.inference_mode():
            yield predict
    finally:
        unet.set_attn_processor(AttnProcessor2_0())


@contextmanager
def diffusers_loader(unet: Any, adapters: Sequence[dict[str, Tensor]], scales: Sequence[Any]) -> Iterator[Any]:
    """predict(x, t, text, features [B, P, ...] of each adapter, added=None) with diffusers' `load_ip_adapter`."""
    is_sdxl = unet.config.addition_embed_type == "text_time"
    kind = diffusers.StableDiffusionXLPipeline if is_sdxl else diffusers.StableDiffusionPipeline
    names = ("vae", "text_encoder", "tokenizer", "feature_extractor", "image_encoder")
    others = dict.fromkeys([*names, "text_encoder_2", "tokenizer_2"] if is_sdxl else [*names, "safety_checker"])
    pipe = kind(unet=unet, scheduler=diffusers.DDIMScheduler(), **others)
    nested = [{name: group(weights, name) for name in ("image_proj", "ip_adapter")} for weights in adapters]
    pipe.load_ip_adapter(
        nested, subfolder=[None] * len(nested), weight_name=[None] * len(nested), image_encoder_folder=None
    )
    pipe.set_ip_adapter_scale(list(scales))

    def predict(
        x: Tensor, t: Tensor, text: Tensor, features: Sequence[Tensor], added: Any = None, **extra: Any
    ) -> Tensor:
        added = {**(added or {}), "image_embeds": list(features)}
        return unet(x, t, encoder_hidden_states=text, added_cond_kwargs=added, **extra).sample

    try:
        with torch.inference_mode():
            yield predict
    finally:
        unet.set_attn_processor(AttnProcessor2_0())
        unet.encoder_hid_proj = None
        unet.register_to_config(encoder_hid_dim_type=None)


def _feature_shape(weights: dict[str, Tensor]) -> tuple[int, ...]:
    proj = group(weights, "image_proj")
    return (1, 2, proj["proj_in.weight"].shape[1]) if "latents" in proj else (1, proj["proj.weight"].shape[1])
