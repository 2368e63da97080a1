"""A real ComfyUI in this process, and our pack loaded into it the way ComfyUI loads it."""

from __future__ import annotations

import functools
import importlib.util
import sys
from types import ModuleType

import torch

from tools.comfyui import ROOT, find_or_fetch


@functools.cache
def pack() -> ModuleType:
    """Our pack as ComfyUI's loader makes it: one package with the nodes and its own copy of the core in it."""
    sys.path.insert(0, str(find_or_fetch()))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    args.use_pytorch_cross_attention = True  # the oracles' kernel, and the one of every ComfyUI on CUDA
    spec = importlib.util.spec_from_file_location(
        "image_prompt_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    importlib.import_module("image_prompt_pack.nodes").folders.register()
    return module


def part(name: str) -> ModuleType:
    """A module of the pack, by its name inside the pack, e.g. `nodes.patch`."""
    return importlib.import_module(f"{pack().__name__}.{name}")
