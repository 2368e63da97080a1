"""Who may import whom: one table of rooms, no circle between modules, and the core alone in a fresh process.

Every import counts, also those inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP = ("ipadapter_core", "nodes", "trainer", "pocket", "tools", "demo", "bench")
COMFYUI = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "comfyui_version", "server"}
DIFFUSERS = {"diffusers", "transformers", "accelerate", "deepspeed"}
ENCODERS = {"open_clip", "insightface"}
FACES = {"insightface", "onnxruntime", "onnx", "cv2"}
PLAIN = {"torch", "einops", "numpy", "PIL"}
OPTIONAL = {"deepspeed", "datasets", "wandb", "insightface", "pillow_heif"}  # extras of the trainer

# What a room may import of this repository beside itself: rooms with all that is below them, less those with a minus. A
# module belongs to the longest name here that its own begins with.
MAY = {
    "ipadapter_core.method": "",
    "ipadapter_core.facts": "ipadapter_core.method",
    "ipadapter_core.files": "ipadapter_core.method ipadapter_core.facts",
    "ipadapter_core": "ipadapter_core",
    "nodes.prompts": "ipadapter_core nodes -nodes.forms -nodes.older -nodes.hosts -nodes.run -nodes.apply",
    "nodes.hosts": "ipadapter_core nodes -nodes.forms -nodes.older -nodes.prompts -nodes.run -nodes.apply",
    "nodes.forms": "ipadapter_core nodes",
    "nodes.forms.pocket": "ipadapter_core nodes pocket.comfyui pocket.world pocket.places",
    "nodes.older": "ipadapter_core nodes -nodes.forms",
    "nodes.__init__": "nodes",
    "nodes": "ipadapter_core nodes -nodes.forms -nodes.older",
    "trainer.settings": "ipadapter_core",
    "trainer.data": "ipadapter_core trainer.settings",
    "trainer.base": "ipadapter_core trainer.settings trainer.data",
    "trainer.step": "ipadapter_core trainer.settings trainer.data trainer.base",
    "trainer.sampling": "ipadapter_core trainer.settings trainer.data trainer.base trainer.step",
    "trainer.run": "ipadapter_core trainer -trainer.commands",
    "trainer.evaluation": "ipadapter_core trainer -trainer.commands -trainer.run",
    "trainer.commands": "ipadapter_core trainer",
    "trainer": "trainer",
    "pocket.places": "",
    "pocket.world": "",
    "pocket.comfyui": "pocket.places",
    "pocket": "ipadapter_core trainer pocket",
    "tools.same": "tools tests.support",
    "tools.help_pictures": "ipadapter_core pocket tools",
    "tools": "ipadapter_core pocket.world tools",
    "demo": "pocket tools",
    "bench": "ipadapter_core trainer pocket tools tests.support",
}
# Packages of others: all that a room may import, or what it may not.
ONLY = {
    "ipadapter_core.method": PLAIN,
    "ipadapter_core": PLAIN | {"safetensors"},
    "pocket.world": {"torch"},
    "pocket.places": set(),
}
NEVER = {
    "nodes": DIFFUSERS,
    "trainer.settings": COMFYUI | DIFFUSERS | ENCODERS,
    "trainer.data": COMFYUI | DIFFUSERS | ENCODERS,
    "trainer": COMFYUI,
    "pocket.training": COMFYUI,
    "pocket.evidence": COMFYUI,
}
# In ComfyUI these are parts of the pack: an absolute import would load them twice, or find ComfyUI's own nodes.py.
RELATIVE = ("ipadapter_core", "nodes", "pocket.places", "pocket.world", "pocket.comfyui")


class Import(NamedTuple):
    """The dotted name that is imported, of a module where it is one of ours, and whether the import is relative."""

    name: str
    is_relative: bool


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the rooms by its dotted name; a package's own file ends in __init__."""
    paths = (path for room in TOP for path in sorted((ROOT / room).rglob("*.py")))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def resolve(name: str) -> str:
    """The module that an import of a name reaches; the name itself where it is none of ours."""
    return f"{name}.__init__" if f"{name}.__init__" in modules() else name


@functools.cache
def imports(module: str) -> frozenset[Import]:
    return frozenset(_imports(module))


def _imports(module: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(resolve(alias.name), False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = resolve(f"{source}.{alias.name}")
                yield Import(inner if inner in modules() else resolve(source), node.level > 0)


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(module: str, table: dict[str, object]) -> str:
    return max((room for room in table if is_in(module, room)), key=len, default="")


def is_ours(name: str) -> bool:
    return any(is_in(name, room) for room in (*TOP, "tests"))


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_what_its_row_says(room: str) -> None:
    mine = [module for module in modules() if room_of(module, MAY) == room]
    assert mine, f"{room} has no modules"
    words = MAY[room].split()
    may = [room, *(word for word in words if not word.startswith("-"))]
    never = [word[1:] for word in words if word.startswith("-")]
    wrong = [
        f"{module} imports {name}"
        for module in mine
        for name, _ in imports(module)
        if is_ours(name)
        and not (any(is_in(name, word) for word in may) and not any(is_in(name, word) for word in never))
    ]
    assert wrong == []


def test_there_is_no_circle() -> None:
    graph = {module: {name for name, _ in imports(module) if name in modules()} - {module} for module in modules()}
    edges = sum(map(len, graph.values()))
    print(f"\n{len(graph)} modules, {edges} imports between them")
    assert edges > len(graph)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", [name for name in modules() if any(is_in(name, room) for room in RELATIVE)])
def test_parts_of_the_pack_reach_each_other_by_relative_imports(module: str) -> None:
    assert [name for name, is_relative in imports(module) if name in modules() and not is_relative] == []


@pytest.mark.parametrize("module", modules())
def test_packages_of_others(module: str) -> None:
    ours = {"tests", *TOP}
    found = {name.split(".")[0] for name, _ in imports(module)} - set(sys.stdlib_module_names) - ours
    if (only := ONLY.get(room_of(module, ONLY))) is not None:
        assert found <= only
    for room, never in NEVER.items():
        assert not (is_in(module, room) and found & never), f"{module} imports {found & never}"


def test_one_file_of_the_nodes_imports_the_faces_extra_and_only_when_it_is_used() -> None:
    users = [
        name for name in modules() if is_in(name, "nodes") if {i.name.split(".")[0] for i in imports(name)} & FACES
    ]
    assert users == ["nodes.prompts.insight"]
    tree = ast.parse(modules()[users[0]].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    late = {id(part) for function in functions for part in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in late:
            assert not FACES & {(getattr(node, "module", None) or alias.name).split(".")[0] for alias in node.names}


@pytest.mark.parametrize("module", [name for name in modules() if is_in(name, "trainer") and "__main__" not in name])
def test_functions_of_the_trainer_import_optional_parts_alone(module: str) -> None:
    """What a module needs is at its top; `__main__` waits with a command's modules until the command is called."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    late = [node for f in functions for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or alias.name for node in late for alias in node.names}
    assert {name.split(".")[0] for name in names} <= OPTIONAL


def test_root_imports_nothing_at_its_top() -> None:
    """pytest imports this file outside of its package, where a relative import fails."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level] == []


def test_core_imports_where_comfyui_and_diffusers_are_not() -> None:
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
    assert not set(loaded) & (COMFYUI | DIFFUSERS | {"open_clip", "trainer"})
