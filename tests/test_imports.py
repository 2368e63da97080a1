"""Who may import whom: the core stands alone, nodes and trainer never meet."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = {"torch", "einops", "safetensors", "numpy", "PIL"}
FACES = {"insightface", "onnxruntime", "onnx", "cv2"}
COMFYUI = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "comfyui_version", "nodes", "server"}
TRAINER = {"diffusers", "transformers", "accelerate", "deepspeed", "trainer"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(number of dots, dotted name) of every import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node.level, name) for name in names)


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder} has no files"
    return found


def outside(path: Path) -> set[str]:
    """Top-level packages that a file imports by absolute name, less Python's own."""
    return {name.split(".")[0] for level, name in imports(path) if level == 0} - set(sys.stdlib_module_names)


def inside(path: Path, folder: str) -> set[str]:
    """Top-level folders of this repository that a file reaches by relative import."""
    depth = len(path.relative_to(ROOT / folder).parts)  # dots that still stay in the folder
    return {name.split(".")[0] for level, name in imports(path) if level > depth}


@pytest.mark.parametrize("path", files("ipadapter_core"), ids=lambda path: path.name)
def test_core_imports_only_plain_torch_and_itself(path):
    assert outside(path) <= CORE
    assert inside(path, "ipadapter_core") == set()


@pytest.mark.parametrize("path", files("nodes"), ids=lambda path: path.name)
def test_nodes_reach_the_core_through_the_pack_and_never_the_trainer(path):
    """The core is loaded under the pack's name in ComfyUI: an absolute import would load it twice."""
    assert inside(path, "nodes") <= {"ipadapter_core"} | ({"pocket"} if path.name == "pocket.py" else set())
    assert not outside(path) & (TRAINER | {"ipadapter_core", "pocket", "tools", "demo"})


def test_one_file_of_the_nodes_imports_the_faces_extra_and_only_when_it_is_used():
    users = [path.name for path in files("nodes") if outside(path) & FACES]
    assert users == ["insight.py"]
    top = ast.Module(ast.parse((ROOT / "nodes" / "prompts" / "insight.py").read_text()).body, [])
    late = [node for node in ast.walk(top) if isinstance(node, ast.FunctionDef)]
    inside_functions = {id(part) for function in late for part in ast.walk(function)}
    for node in ast.walk(top):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in inside_functions:
            assert not FACES & {(getattr(node, "module", None) or alias.name).split(".")[0] for alias in node.names}


@pytest.mark.parametrize("path", files("trainer"), ids=lambda path: path.name)
def test_trainer_never_reaches_nodes_or_comfyui(path):
    assert not outside(path) & COMFYUI
    assert inside(path, "trainer") == set()


def test_root_imports_nothing_at_its_top():
    """pytest imports this file outside of its package, where a relative import fails."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    top = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    assert top == []


def test_core_imports_where_comfyui_and_diffusers_are_not():
    code = """
import importlib, pkgutil, sys
blocked = ["comfy", "comfy_api", "folder_paths", "nodes", "diffusers", "transformers", "open_clip", "accelerate"]
sys.modules.update(dict.fromkeys(blocked))
import ipadapter_core
for module in pkgutil.walk_packages(ipadapter_core.__path__, "ipadapter_core."):
    importlib.import_module(module.name)
print(*sorted(name for name, module in sys.modules.items() if module is not None and "." not in name))
"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"ipadapter_core", "torch", "safetensors"} <= set(loaded)
    assert not set(loaded) & (COMFYUI | TRAINER | {"open_clip"})
