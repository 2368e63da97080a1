"""What loading the pack costs a ComfyUI that starts: time, and packages that it had not loaded itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tools.comfyui import ROOT, find_or_fetch

pytestmark = pytest.mark.comfy

LIMIT = 0.2  # seconds of the processor
LAZY = {"diffusers", "transformers", "open_clip", "insightface", "onnxruntime", "timm", "accelerate"}
# As ComfyUI loads it, after its own nodes; how they were loaded says which packages are its own.
LOAD = """
import asyncio, compileall, importlib.util, json, sys, time
comfyui, pack = sys.argv[1:]
sys.argv = sys.argv[:1] + ["--cpu"]
sys.path.insert(0, comfyui)
import comfy.options
comfy.options.enable_args_parsing()
import nodes, execution, comfy_api.latest
for room in ("nodes", "ipadapter_core", "pocket"):
    compileall.compile_dir(f"{pack}/{room}", quiet=2)
before, start = set(sys.modules), time.process_time()
spec = importlib.util.spec_from_file_location("pack", f"{pack}/__init__.py", submodule_search_locations=[pack])
module = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

async def load():
    extension = await module.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA().node_id for node in await extension.get_node_list()]

names = asyncio.run(load())
seconds = time.process_time() - start
new = sorted({name.partition(".")[0] for name in set(sys.modules) - before} - {"pack"})
print(json.dumps({"seconds": seconds, "nodes": len(names), "packages": new}))
"""


def test_loading_is_quick_and_loads_nothing_heavy() -> None:
    command = [sys.executable, "-c", LOAD, str(find_or_fetch()), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=find_or_fetch(), check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    print(f"\n{found['nodes']} nodes in {found['seconds']:.3f} s; packages that ComfyUI had not: {found['packages']}")
    assert found["nodes"] >= 20
    assert not LAZY & set(found["packages"])
    assert found["seconds"] < LIMIT
