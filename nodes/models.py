"""Adapters for ComfyUI: weights that its memory manager owns, read once for each unchanged file."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops

from ..ipadapter_core import (
    AdapterSpec,
    IPAdapter,
    Lora,
    WeightsFile,
    build_adapter,
    describe,
    detect,
    extra_keys,
    lora_of,
    read_adapter,
    resolve_variant,
)
from ..ipadapter_core.facts.variants import AUTO
from . import folders

log = logging.getLogger(__name__)


class Adapter:
    """An adapter for ComfyUI: its weights in a ModelPatcher, so that they are counted, moved and freed."""

    def __init__(self, name: str, model: IPAdapter, metadata: dict[str, str], lora: Lora | None = None) -> None:
        self.name = name
        self.metadata = metadata
        self.lora = lora or {}
        # CoreModelPatcher is looked up at call time: dynamic VRAM rebinds it.
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            model,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    @property
    def model(self) -> IPAdapter:
        return self.patcher.model

    @property
    def spec(self) -> AdapterSpec:
        return self.model.spec


# The adapters that are alive, by file and its state: the same unchanged file is read once.
_alive: weakref.WeakValueDictionary[Any, Adapter] = weakref.WeakValueDictionary()


def load_adapter(path: Path, variant: str = AUTO) -> Adapter:
    """Read an adapter file; the same unchanged file gives the same object while anyone holds it."""
    key = (folders.state(path), variant)
    adapter = _alive.get(key)
    if adapter is None:
        adapter = _alive[key] = adapter_of(path.name, read_adapter(path), variant)
        log.info(f"{path.name}: {describe(adapter.spec, adapter.metadata)}")
    return adapter


def adapter_of(name: str, file: WeightsFile, variant: str = AUTO) -> Adapter:
    """An adapter from a file's content. Raises ValueError that names the file when it is not an adapter."""
    try:
        spec = resolve_variant(detect(file.tensors), file.metadata, variant)
        model = build_adapter(file.tensors, operations=comfy.ops.manual_cast, spec=spec)
        lora = lora_of(file.tensors)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if extra := extra_keys(file.tensors, spec):
        log.warning(f"{name} has {len(extra)} weights that no adapter has, left out: {', '.join(extra[:5])}")
    return Adapter(name, model, file.metadata, lora)
