"""Load IP-Adapter: a file, known by its content, as weights that ComfyUI's memory manager owns."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
from comfy_api.latest import io

from ..ipadapter_core import AdapterSpec, IPAdapter, build_adapter, read_adapter
from . import folders

CATEGORY = "image prompt"
AdapterType = io.Custom("IMAGE_PROMPT_ADAPTER")
log = logging.getLogger(__name__)


class Adapter:
    """An adapter for ComfyUI: its weights in a ModelPatcher, so that they are counted, moved and freed."""

    def __init__(self, name: str, model: IPAdapter, metadata: dict[str, str]) -> None:
        self.name = name
        self.metadata = metadata
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


def load_adapter(path: Path) -> Adapter:
    """Read an adapter file; the same unchanged file gives the same object while anyone holds it."""
    key = folders.state(path)
    adapter = _alive.get(key)
    if adapter is None:
        file = read_adapter(path)
        try:
            model = build_adapter(file.tensors, operations=comfy.ops.manual_cast)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
        adapter = _alive[key] = Adapter(path.name, model, file.metadata)
        spec = adapter.spec
        logging.info(
            f"{path.name}: {spec.family} adapter for {spec.base}, {spec.encoder}, {spec.num_tokens} image tokens"
        )
    return adapter


class LoadAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptLoadAdapter",
            display_name="Load IP-Adapter",
            category=CATEGORY,
            description="Loads an IP-Adapter from any file; what it is, is told by its content, whatever its name.",
            search_aliases=["ipadapter", "ip-adapter", "image prompt", "reference"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=folders.adapter_files(),
                    tooltip="A file in models/ipadapter (or an extra path of that kind). Its name does not matter.",
                )
            ],
            outputs=[AdapterType.Output(display_name="adapter")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        return folders.fingerprint(folders.path_of(folders.ADAPTERS, file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_adapter(folders.path_of(folders.ADAPTERS, file)))
