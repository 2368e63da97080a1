"""Two independent implementations to agree with: the PyPI package `ip-adapter` and diffusers' own loader."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from diffusers.loaders.unet import UNet2DConditionLoadersMixin
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

# The package imports a class that diffusers has moved since.
diffusers.utils.logging.set_verbosity_error()
diffusers.pipelines.controlnet.MultiControlNetModel = diffusers.MultiControlNetModel

from ip_adapter.attention_processor import IPAttnProcessor2_0  # noqa: E402
from ip_adapter.attention_processor_faceid import LoRAAttnProcessor, LoRAIPAttnProcessor  # noqa: E402
from ip_adapter.ip_adapter import ImageProjModel  # noqa: E402
from ip_adapter.ip_adapter import MLPProjModel as FullProjection  # noqa: E402
from ip_adapter.ip_adapter_faceid import MLPProjModel as IdentityProjection  # noqa: E402
from ip_adapter.resampler import Resampler  # noqa: E402


def group(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """One group of a flat adapter, `image_proj` or `ip_adapter`, without its prefix."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def package_projection(weights: dict[str, Tensor]) -> nn.Module | None:
    """The package's projection with the adapter's weights; None where it has none of that kind (FaceID plus)."""
    proj = group(weights, "image_proj")
    with torch.device("meta"):  # the weights are assigned: the largest projection is used once, not twice
        if "latents" in proj:
            _, queries, dim = proj["latents"].shape
            depth = len({key.split(".")[1] for key in proj if key.startswith("layers.")})
            model: nn.Module = Resampler(
                dim=dim, depth=depth, dim_head=64, num_queries=queries,
                heads=proj["layers.0.0.to_q.weight"].shape[0] // 64, embedding_dim=proj["proj_in.weight"].shape[1],
                output_dim=proj["proj_out.weight"].shape[0],
                ff_mult=proj["layers.0.1.1.weight"].shape[0] // dim,
            )  # fmt: skip
        elif "perceiver_resampler.proj_in.weight" in proj:
            return None
        elif "proj.3.weight" in proj:
            model = FullProjection(*proj["proj.2.weight"].shape)
        elif "proj.0.weight" in proj:
            context = proj["norm.weight"].shape[0]
            model = IdentityProjection(context, proj["proj.0.weight"].shape[1], len(proj["proj.2.weight"]) // context)
        else:
            context = proj["norm.weight"].shape[0]
            rows, width = proj["proj.weight"].shape
            model = ImageProjModel(context, width, rows // context)
    model.load_state_dict(proj, assign=True)
    return model.eval().requires_grad_(False)


def package_tokens(weights: dict[str, Tensor], features: Tensor | None, identities: Tensor | None) -> Tensor | None:
    """The package's image tokens; None where it has no such projection."""
    projection = package_projection(weights)
    if projection is None:
        return None
    return projection(as_one_input(weights, features, identities))


def as_one_input(weights: dict[str, Tensor], features: Tensor | None, identities: Tensor | None) -> Tensor:
    """What a projection with one input reads; a resampler reads identities as a sequence of one."""
    if identities is None:
        assert features is not None
        return features
    return identities[:, None] if "image_proj.latents" in weights else identities


class Loader(UNet2DConditionLoadersMixin):
    """What of diffusers' UNet its conversion of projections uses."""

    device = torch.device("cpu")
    dtype = torch.float32


@contextmanager
def tokens_of_file(weights: dict[str, Tensor]) -> Iterator[None]:
    """diffusers builds FaceID plus with 4 tokens, whatever the file has: Kolors' has 6."""
    made = diffusers.loaders.unet.IPAdapterFaceIDPlusImageProjection
    proj = group(weights, "image_proj")
    if "perceiver_resampler.proj_in.weight" in proj:
        num_tokens = len(proj["proj.2.weight"]) // len(proj["norm.weight"])
        diffusers.loaders.unet.IPAdapterFaceIDPlusImageProjection = functools.partial(made, num_tokens=num_tokens)
    try:
        yield
    finally:
        diffusers.loaders.unet.IPAdapterFaceIDPlusImageProjection = made


def diffusers_projection(weights: dict[str, Tensor]) -> nn.Module:
    """diffusers' projection, through its own conversion of published files."""
    with tokens_of_file(weights):
        made = Loader()._convert_ip_adapter_image_proj_to_diffusers(
            group(weights, "image_proj"), low_cpu_mem_usage=True
        )
    return made.eval().requires_grad_(False)


def diffusers_tokens(
    weights: dict[str, Tensor], features: Tensor | None, identities: Tensor | None, shortcut: bool = True,
    scale: float = 1.0,
) -> Tensor:  # fmt: skip
    """diffusers' image tokens. shortcut, scale: of FaceID plus v2."""
    projection = diffusers_projection(weights)
    if features is None or identities is None:
        return projection(as_one_input(weights, features, identities))
    projection.clip_embeds, projection.shortcut, projection.shortcut_scale = features[:, None], shortcut, scale
    return projection(identities)


@contextmanager
def package(unet: Any, weights: dict[str, Tensor], scale: float, tokens: Any = None) -> Iterator[Any]:
    """predict(x, t, text, features, added=None) with the package's attention processors in diffusers' UNet.

    tokens: features to image tokens; None: the package's own projection. With FaceID's LoRA, its processors are used.
    """
    tokens = tokens or package_projection(weights)
    kv = group(weights, "ip_adapter")
    processors = {}
    for index, (name, old) in enumerate(unet.attn_processors.items()):
        own = {k.removeprefix(f"{index}."): v for k, v in kv.items() if k.startswith(f"{index}.")}
        processors[name] = _package_processor(own, scale) if own else old
    unet.set_attn_processor(dict(processors))  # which empties what it is given

    def predict(x: Tensor, t: Tensor, text: Tensor, features: Any, added: Any = None, **extra: Any) -> Tensor:
        image = tokens(features)
        for processor in processors.values():
            processor.num_tokens = image.shape[1]
        states = torch.cat([text, image], dim=1)
        return unet(x, t, encoder_hidden_states=states, added_cond_kwargs=added, **extra).sample

    try:
        with torch.inference_mode():
            yield predict
    finally:
        unet.set_attn_processor(AttnProcessor2_0())


def _package_processor(own: dict[str, Tensor], scale: float) -> nn.Module:
    """The package's processor for the weights of one layer: image attention, LoRA, or both."""
    rank = own["to_q_lora.down.weight"].shape[0] if "to_q_lora.down.weight" in own else None
    with torch.device("meta"):
        if "to_k_ip.weight" not in own:
            made: nn.Module = LoRAAttnProcessor(own["to_q_lora.down.weight"].shape[1], rank=rank)
        else:
            width, context = own["to_k_ip.weight"].shape
            kind = IPAttnProcessor2_0 if rank is None else functools.partial(LoRAIPAttnProcessor, rank=rank)
            made = kind(width, context, scale=scale, num_tokens=0)
    made.load_state_dict(own, assign=True)
    return made


@contextmanager
def diffusers_loader(
    unet: Any, adapters: Sequence[dict[str, Tensor]], scales: Sequence[Any], text_projection: Any = None
) -> Iterator[Any]:
    """predict(x, t, text, features [B, P, ...] of each adapter, added=None) with diffusers' `load_ip_adapter`.

    clip, shortcut: what FaceID plus reads beside identities, handed to its projection as diffusers documents it.
    text_projection: Kolors' own, for tokens that go through it. FaceID's LoRA is not applied: see `merged`.
    """
    is_sdxl = unet.config.addition_embed_type == "text_time"
    kind = diffusers.StableDiffusionXLPipeline if is_sdxl else diffusers.StableDiffusionPipeline
    names = ("vae", "text_encoder", "tokenizer", "feature_extractor", "image_encoder")
    others = dict.fromkeys([*names, "text_encoder_2", "tokenizer_2"] if is_sdxl else [*names, "safety_checker"])
    pipe = kind(unet=unet, scheduler=diffusers.DDIMScheduler(), **others)
    nested = [{name: group(weights, name) for name in ("image_proj", "ip_adapter")} for weights in adapters]
    with tokens_of_file(adapters[0]):
        pipe.load_ip_adapter(
            nested, subfolder=[None] * len(nested), weight_name=[None] * len(nested), image_encoder_folder=None
        )
    pipe.set_ip_adapter_scale(list(scales))
    layers = unet.encoder_hid_proj.image_projection_layers
    if text_projection is not None:
        layers[0] = nn.Sequential(layers[0], text_projection)

    def predict(
        x: Tensor, t: Tensor, text: Tensor, features: Sequence[Tensor], added: Any = None, clip: Tensor | None = None,
        shortcut: bool = False, **extra: Any,
    ) -> Tensor:  # fmt: skip
        if clip is not None:
            plus = layers[0][0] if text_projection is not None else layers[0]
            plus.clip_embeds, plus.shortcut = clip[:, None], shortcut
        added = {**(added or {}), "image_embeds": list(features)}
        return unet(x, t, encoder_hidden_states=text, added_cond_kwargs=added, **extra).sample

    try:
        with torch.inference_mode():
            yield predict
    finally:
        unet.set_attn_processor(AttnProcessor2_0())
        unet.encoder_hid_proj = None
        unet.register_to_config(encoder_hid_dim_type=None)


@contextmanager
def merged(unet: Any, weights: dict[str, Tensor], strength: float = 1.0) -> Iterator[None]:
    """diffusers' UNet with the LoRA of a FaceID adapter multiplied into its matrices by hand."""
    kv, originals = group(weights, "ip_adapter"), []
    for index, name in enumerate(unet.attn_processors):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for projection in ("to_q", "to_k", "to_v", "to_out"):
            if f"{index}.{projection}_lora.up.weight" not in kv:
                continue
            layer = attention.to_out[0] if projection == "to_out" else getattr(attention, projection)
            up, down = (kv[f"{index}.{projection}_lora.{half}.weight"] for half in ("up", "down"))
            originals.append((layer, layer.weight))
            layer.weight = nn.Parameter(layer.weight + strength * up @ down, requires_grad=False)
    try:
        yield
    finally:
        for layer, weight in originals:
            layer.weight = weight
