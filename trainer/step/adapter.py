"""The adapter that is trained: its shape from config, base and encoder; its start; its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ipadapter_core import (
    AdapterSpec,
    Encoder,
    Given,
    IPAdapter,
    base_name,
    build_adapter,
    detect,
    layer_widths,
    lora_of,
    read_adapter,
    resolve_variant,
)
from ipadapter_core.facts.variants import option_metadata

from ..base.processor import AdapterOutput, Kind
from ..base.sites import Sites
from ..settings.config import Config
from ..settings.families import lora_rank
from .lora import add_lora, load_lora, lora_pairs
from .shape import adapter_spec

NO_ENCODER = "none"  # in metadata, of an adapter that reads no image encoder


def adapter_output(adapter: IPAdapter, given: Given) -> AdapterOutput:
    """What the layers of a base are given for B references."""
    keys_values = adapter.keys_values(adapter.image_tokens(given))
    return AdapterOutput(keys_values, {place: pair() for place, pair in lora_pairs(adapter).items()})


def new_adapter(config: Config, sites: Sites, encoder: Encoder | None, **factory: Any) -> IPAdapter:
    """The adapter at step 0, in fp32: K' and V' from the text's K and V, all else from run.seed; or a file.

    encoder: None for a family that reads none.
    Raises ValueError when adapter.start_from does not fit the base, the encoder or the config.
    """
    spec = adapter_spec(config.adapter, sites, encoder)
    if config.adapter.start_from:
        return _started(config, spec, sites)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        adapter = IPAdapter(spec, sites.widths, dtype=torch.float32, **factory)
        if rank := lora_rank(config.adapter.family, config.adapter.lora_rank):
            add_lora(adapter, sites, rank, dtype=torch.float32, **factory)
    with torch.no_grad():
        for index, (k, v) in sites.text.items():
            layer: Any = adapter.ip_adapter[str(index)]
            if not k.is_meta:
                layer.to_k_ip.weight.copy_(k)
                layer.to_v_ip.weight.copy_(v)
    return _frozen_as(config.adapter.attention, adapter)


def load_adapter(
    tensors: Mapping[str, Tensor],
    sites: Sites,
    device: Any = None,
    metadata: Mapping[str, str] | None = None,
) -> IPAdapter:
    """The adapter that a file or a checkpoint holds, in fp32. A simple adapter's K' and V' are those of this base.

    metadata: the file's, for what shapes cannot tell.
    Raises ValueError as `build_adapter` does, and when a LoRA is of another base.
    """
    if is_appended(tensors):
        tensors = {**tensors, **_text_layers(sites)}
    adapter = build_adapter(tensors, device=device, spec=resolve_variant(detect(tensors), metadata or {})).float()
    load_lora(adapter, sites, lora_of(tensors), device)
    return adapter.requires_grad_(False)


def is_appended(tensors: Mapping[str, Any]) -> bool:
    """Whether a file holds a projection alone, as training with adapter.attention = "appended" writes it."""
    return bool(tensors) and all(key.startswith("image_proj.") for key in tensors)


def trained_parameters(adapter: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What is trained, saved and averaged: an adapter's parameters by the file's names."""
    return [(name, parameter) for name, parameter in adapter.named_parameters() if parameter.requires_grad]


def _text_layers(sites: Sites) -> dict[str, Tensor]:
    """The base's own K and V by the names that K' and V' have in a file, in fp32 as trained weights are."""
    return {
        f"ip_adapter.{index}.to_{name}_ip.weight": weight.float()
        for index, pair in sites.text.items()
        for name, weight in zip("kv", pair, strict=True)
    }


def _frozen_as(attention: Kind, adapter: IPAdapter) -> IPAdapter:
    adapter.ip_adapter.requires_grad_(attention == "decoupled")
    return adapter


def _started(config: Config, spec: AdapterSpec, sites: Sites) -> IPAdapter:
    path = Path(config.adapter.start_from)
    if not path.is_file():
        raise ValueError(
            f"there is no adapter file {path}: correct adapter.start_from, or leave it empty to start anew"
        )
    file = read_adapter(path)
    tensors, rank = file.tensors, lora_rank(config.adapter.family, config.adapter.lora_rank)
    kind = "appended" if is_appended(tensors) else "decoupled"
    if kind != config.adapter.attention:
        raise ValueError(
            f"{path.name} is for {kind} attention, this training for {config.adapter.attention}: "
            "change adapter.attention, or start from another file"
        )
    adapter = load_adapter(tensors, sites, metadata=file.metadata)
    found, ranks = adapter.spec, {len(pair.down.weight) for pair in lora_pairs(adapter).values()}
    for name, mine, theirs, where in (
        ("family", spec.family, found.family, "adapter.family"),
        ("image feature width", spec.feature_dim, found.feature_dim, "model.encoder"),
        ("text width", spec.context_dim, found.context_dim, "model.base"),
        ("layers", len(spec.layers), len(found.layers), "model.base"),
        ("tokens", config.adapter.num_tokens or found.num_tokens, found.num_tokens, "adapter.num_tokens"),
        ("shortcut", spec.shortcut, found.shortcut, "adapter.shortcut"),
        ("LoRA rank", rank, max(ranks, default=0), "adapter.lora_rank"),
    ):
        if mine != theirs:
            raise ValueError(
                f"{path.name} has the {name} {theirs}, this training {mine}: change {where}, or start from another file"
            )
    if sites.widths != layer_widths(dict(adapter.named_parameters()), found):
        raise ValueError(
            f"{path.name} is for a base with layers of other widths: change model.base, or start from another file"
        )
    # "no picture" is what this training makes of it, whatever the file's did
    adapter.spec = dataclasses.replace(found, zero_features=False)
    return _frozen_as(config.adapter.attention, adapter.train().requires_grad_(True))


def metadata(spec: AdapterSpec, config: Config, step: int, prediction: str) -> dict[str, str]:
    """What a file's shapes cannot tell, and what people ask: read by the nodes and by `export`.

    prediction: what the base predicts, as the objective resolved it.
    """
    encoder = config.model.encoder if not Path(config.model.encoder).exists() else Path(config.model.encoder).name
    return {
        "format": "pt",
        "base": base_name(spec),
        "base_model": Path(config.model.base).name,
        "family": spec.family,
        "attention": config.adapter.attention,
        "encoder": encoder if spec.feature else NO_ENCODER,
        "encoder_width": str(spec.feature_dim),
        "feature": spec.feature or "none",
        "tokens": str(spec.num_tokens),
        "step": str(step),
        "samples_per_step": str(config.samples_per_step),
        "resolution": str(config.data.resolution),
        "prediction": prediction,
        "ema": str(config.optimiser.ema),
        "licence": config.adapter.licence,
        "config": config.hash,
    } | option_metadata(spec)
