"""The adapter that is trained: its shape from config, base and encoder; its start; its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ipadapter_core import (
    AdapterSpec,
    IPAdapter,
    LinearProjection,
    ResamplerProjection,
    build_adapter,
    read_adapter,
)
from ipadapter_core.spec import Feature

from .attention import Kind, text_keys_values, unet_layers
from .config import AdapterConfig, Config
from .encoder import EncoderShape

TOKENS = {"base": 4, "plus": 16}
# Width of the published resamplers, by context width; depth 4, feed-forward x4. Other bases: their context.
RESAMPLER_WIDTH = {768: 768, 1024: 1024, 2048: 1280}
HEAD_WIDTH = 64


class TrainedAdapter(nn.Module):
    """The adapter as one module with a forward, for DDP and DeepSpeed: features to all K' and V'.

    With appended attention K' and V' stay the base's own, and only the projection is trained.
    """

    def __init__(self, adapter: IPAdapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.layers = adapter.spec.layers

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features [B, E] or [B, S, F] to K', V' [B, T, D] of the layers in order: k, v, k, v, ..."""
        keys_values = self.adapter.keys_values(self.adapter.image_tokens(features))
        return tuple(tensor for index in self.layers for tensor in keys_values[index])

    def by_layer(self, flat: tuple[Tensor, ...]) -> dict[int, tuple[Tensor, Tensor]]:
        """What `forward` gave, by checkpoint index."""
        return {index: (flat[2 * place], flat[2 * place + 1]) for place, index in enumerate(self.layers)}


def adapter_spec(config: AdapterConfig, unet: UNet2DConditionModel, encoder: EncoderShape) -> AdapterSpec:
    """The shape of a new adapter on this base and encoder. Raises ValueError for a base without cross-attention."""
    context_dim = unet.config.cross_attention_dim
    layers = tuple(layer.index for layer in unet_layers(unet))
    is_plus = config.family == "plus"
    width = config.width or RESAMPLER_WIDTH.get(context_dim, -(-context_dim // HEAD_WIDTH) * HEAD_WIDTH)
    if is_plus and width % HEAD_WIDTH:
        raise ValueError(
            f"adapter.width = {width} should be a multiple of {HEAD_WIDTH}, the width of an attention head"
        )
    resampler = ResamplerProjection(width, config.depth or 4, width // HEAD_WIDTH, 4 * width)
    feature: Feature = "penultimate" if is_plus else "pooled"
    return AdapterSpec(
        family=config.family,
        feature=feature,
        feature_dim=encoder.feature_dim(feature),
        context_dim=context_dim,
        num_tokens=config.num_tokens or TOKENS[config.family],
        layers=layers,
        projection=resampler if is_plus else LinearProjection(),
    )


def new_adapter(config: Config, unet: UNet2DConditionModel, encoder: EncoderShape, **factory: Any) -> IPAdapter:
    """The adapter at step 0, in fp32: K' and V' from the text's K and V, the projection from run.seed; or a file.

    Raises ValueError when adapter.start_from does not fit the base, the encoder or the config.
    """
    spec = adapter_spec(config.adapter, unet, encoder)
    text = text_keys_values(unet)
    widths = {index: k.shape[0] for index, (k, _) in text.items()}
    if config.adapter.start_from:
        return _started(config, spec, unet, widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        adapter = IPAdapter(spec, widths, dtype=torch.float32, **factory)
    with torch.no_grad():
        for index, (k, v) in text.items():
            layer = adapter.ip_adapter[str(index)]
            if not k.is_meta:
                layer.to_k_ip.weight.copy_(k)
                layer.to_v_ip.weight.copy_(v)
    return _frozen_as(config.adapter.attention, adapter)


def load_adapter(tensors: Mapping[str, Tensor], unet: UNet2DConditionModel, device: Any = None) -> IPAdapter:
    """The adapter that a file or a checkpoint holds, in fp32. A simple adapter's K' and V' are those of this base.

    Raises ValueError as `build_adapter` does.
    """
    if is_appended(tensors):
        tensors = {**tensors, **_text_layers(unet)}
    return build_adapter(tensors, device=device).float()


def is_appended(tensors: Mapping[str, Any]) -> bool:
    """Whether a file holds a projection alone, as training with adapter.attention = "appended" writes it."""
    return bool(tensors) and all(key.startswith("image_proj.") for key in tensors)


def trained_parameters(adapter: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What is trained, saved and averaged: an adapter's parameters by the file's names."""
    return [(name, parameter) for name, parameter in adapter.named_parameters() if parameter.requires_grad]


def _text_layers(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The base's own K and V by the names that K' and V' have in a file, in fp32 as trained weights are."""
    text = text_keys_values(unet).items()
    return {
        f"ip_adapter.{index}.to_{name}_ip.weight": weight.detach().float()
        for index, pair in text
        for name, weight in zip("kv", pair, strict=True)
    }


def _frozen_as(attention: Kind, adapter: IPAdapter) -> IPAdapter:
    adapter.ip_adapter.requires_grad_(attention == "decoupled")
    return adapter


def _started(config: Config, spec: AdapterSpec, unet: UNet2DConditionModel, widths: dict[int, int]) -> IPAdapter:
    path = Path(config.adapter.start_from)
    if not path.is_file():
        raise ValueError(
            f"there is no adapter file {path}: correct adapter.start_from, or leave it empty to start anew"
        )
    tensors = read_adapter(path).tensors
    kind = "appended" if is_appended(tensors) else "decoupled"
    if kind != config.adapter.attention:
        raise ValueError(
            f"{path.name} is for {kind} attention, this training for {config.adapter.attention}: "
            "change adapter.attention, or start from another file"
        )
    adapter = load_adapter(tensors, unet)
    found = adapter.spec
    for name, mine, theirs, where in (
        ("family", spec.family, found.family, "adapter.family"),
        ("image feature width", spec.feature_dim, found.feature_dim, "model.encoder"),
        ("text width", spec.context_dim, found.context_dim, "model.base"),
        ("layers", len(spec.layers), len(found.layers), "model.base"),
        ("tokens", config.adapter.num_tokens or found.num_tokens, found.num_tokens, "adapter.num_tokens"),
    ):
        if mine != theirs:
            raise ValueError(
                f"{path.name} has the {name} {theirs}, this training {mine}: change {where}, or start from another file"
            )
    if widths != {index: adapter.ip_adapter[str(index)].to_k_ip.out_features for index in found.layers}:
        raise ValueError(
            f"{path.name} is for a base with layers of other widths: change model.base, or start from another file"
        )
    return _frozen_as(config.adapter.attention, adapter.train().requires_grad_(True))


def metadata(spec: AdapterSpec, config: Config, step: int) -> dict[str, str]:
    """What a file's shapes cannot tell, and what people ask: read by the nodes and by `export`."""
    return {
        "format": "pt",
        "base": spec.base,
        "base_model": Path(config.model.base).name,
        "family": spec.family,
        "attention": config.adapter.attention,
        "encoder": config.model.encoder if not Path(config.model.encoder).exists() else Path(config.model.encoder).name,
        "encoder_width": str(spec.feature_dim),
        "feature": spec.feature,
        "tokens": str(spec.num_tokens),
        "step": str(step),
        "samples_per_step": str(config.samples_per_step),
        "resolution": str(config.data.resolution),
        "prediction": config.model.prediction,
        "ema": str(config.optimiser.ema),
        "licence": config.adapter.licence,
        "config": config.hash,
    }
