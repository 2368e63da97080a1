"""This pack as ComfyUI loads it, for tools that write files out of its nodes."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tools.comfyui import ROOT, find_or_fetch


def load() -> ModuleType:
    """The pack's `nodes`, in a ComfyUI of this process that runs nothing and needs no GPU."""
    sys.path.insert(0, str(find_or_fetch()))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    nodes = importlib.import_module("pack.nodes")
    nodes.folders.register()
    return nodes
