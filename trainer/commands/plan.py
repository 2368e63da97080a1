"""What a training would do, without doing it: shapes are counted on torch's meta device, no weights are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ipadapter_core import base_name

from ..base.encoder import build_visual
from ..base.files import BaseFiles, layout_folder
from ..base.sites import sites_of
from ..base.unet import build_parts
from ..data.record import Source
from ..data.sets import Sets, epoch_length
from ..run import checkpoint
from ..settings.config import Config
from ..settings.families import trained_family
from ..settings.optimisers import OPTIMISERS, name_of
from ..step.adapter import new_adapter, trained_parameters
from ..step.lora import lora_pairs
from ..step.shape import encoder_shape

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
MIB = 2**20


@dataclass(frozen=True)
class Plan:
    """Numbers of a training. memory: bytes of each part on each process, without activations."""

    trained: int
    projection: int
    lora: int
    layers: int
    tokens: int
    base: str
    samples_per_step: int
    samples: int
    memory: dict[str, int]


def make_plan(config: Config) -> Plan:
    """Count a training's weights and memory. Raises ValueError for what `train` would refuse in config and shapes."""
    layout = _layout(config)
    with torch.device("meta"):
        parts = build_parts(layout)
        shape = encoder_shape(config)
        adapter = new_adapter(config, sites_of(parts["UNet"][0]), shape)
        visual = [build_visual(shape)] if shape else []
    trained = sum(parameter.numel() for _, parameter in trained_parameters(adapter))
    half = BYTES[config.run.precision]
    memory = {f"UNet, {config.run.precision}": count(parts["UNet"]) * half}
    if not config.data.cache:
        (vae,) = parts["autoencoder"]
        memory["autoencoder"] = count([vae]) * (4 if vae.config.get("force_upcast", False) else half)
        memory["text encoders"] = count(parts["text encoders"]) * half
        if visual:
            memory["image encoder"] = count(visual) * half
    memory |= trained_memory(config, trained)
    if frozen := count([adapter]) - trained:
        memory["K' and V', the base's own"] = frozen * 4
    return Plan(
        trained=trained,
        projection=count([adapter.image_proj]),
        lora=count(lora_pairs(adapter).values()),
        layers=len(adapter.spec.layers),
        tokens=adapter.spec.num_tokens,
        base=base_name(adapter.spec),
        samples_per_step=config.samples_per_step,
        samples=config.samples_per_step * config.run.steps,
        memory=memory,
    )


def trained_memory(config: Config, trained: int) -> dict[str, int]:
    """Bytes on each process of what belongs to the trained weights, parted as ZeRO's stage says."""
    stage = int(config.run.parallel[-1]) if config.run.parallel.startswith("zero") else 0
    share = -(-trained // config.run.processes)
    state = OPTIMISERS[name_of(config.optimiser)].state_bytes
    is_half = bool(stage) and config.run.precision == "fp16"
    parts = {"trained weights": (share if stage == 3 else trained) * (2 if is_half else 4)}
    if stage:
        parts["fp32 weights of the optimiser"] = share * 4
    parts["gradients"] = (share if stage >= 2 else trained) * (2 if is_half else 4)
    parts["optimiser state"] = (share if stage else trained) * state
    if config.optimiser.ema:
        parts["EMA"] = trained * 4
    if config.run.offload_optimiser:
        parts = {name: value for name, value in parts.items() if "optimiser" not in name}
    return parts


def count(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def describe(config: Config, plan: Plan, source: Source | None = None) -> str:
    """The plan as text. source: the data, None when it is not there yet."""
    run, steps = config.run, config.run.steps
    layers, batches = plan.trained - plan.projection - plan.lora, config.optimiser.accumulation
    lora = f", {plan.lora:,} LoRA" if plan.lora else ""
    lines = [
        f"base                 {plan.base} ({config.model.base or 'not set'})",
        f"image encoder        {config.model.encoder if trained_family(config.adapter.family)[0].feature else 'none'}",
        f"adapter              {config.adapter.family}, {plan.tokens} image tokens, {plan.layers} layers, "
        f"{config.adapter.attention} attention",
        f"trained weights      {plan.trained:,} ({plan.projection:,} projection, {layers:,} K' and V'{lora})",
        f"samples per step     {plan.samples_per_step} = {run.batch_size} x {run.processes} processes x {batches}",
        f"steps                {steps:,}, {plan.samples:,} samples",
        *_epochs(plan, source),
        f"computing            {run.device}, {run.parallel}, frozen parts in {run.precision}",
        "memory of a process  without activations:",
        *(f"  {name:<32} {size / MIB:10,.0f} MiB" for name, size in plan.memory.items()),
        f"  {'together':<32} {sum(plan.memory.values()) / MIB:10,.0f} MiB",
        "files",
        *(f"  {line}" for line in _files(config, plan)),
    ]
    return "\n".join(lines)


def _epochs(plan: Plan, source: Source | None) -> list[str]:
    if source is None:
        return ["epochs               the data is not there yet"]
    length = epoch_length(source)
    sets = source.lines() if isinstance(source, Sets) else []
    return [f"epochs               {plan.samples / length:,.1f} of {length:,} samples", *(f"  {line}" for line in sets)]


def _files(config: Config, plan: Plan) -> list[str]:
    run = Path(config.run.folder or "RUN")
    copies = 4 if config.optimiser.ema else 3
    size = plan.trained * 4 / MIB
    return [
        f"{run / 'config.toml'}",
        f"{run / 'log.jsonl'}, every {config.run.log_every_steps} steps",
        f"{run / 'tensorboard'}" if "tensorboard" in config.run.trackers else "no TensorBoard",
        f"{run / 'samples'}, every {config.run.sample_every_steps} steps"
        if config.run.sample_every_steps
        else "no pictures",
        f"{checkpoint.folder(run)}, every {config.run.save_every_steps} steps, "
        f"{config.run.keep_last or 'all'} kept: adapter {size:,.0f} MiB, state {copies * size:,.0f} MiB",
    ]


def _layout(config: Config) -> Path:
    if config.model.base and Path(config.model.base).exists():
        return BaseFiles(config.model).layout
    if not config.model.base_config:
        raise ValueError(
            f"there is no base {config.model.base!r} to plan for: correct model.base, "
            "or set model.base_config to sd15, sd2 or sdxl"
        )
    return layout_folder(config.model.base_config)
