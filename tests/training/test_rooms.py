"""Who imports whom in the trainer: no circles, nothing hidden in functions, data that know no model."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = {"deepspeed", "bitsandbytes", "datasets", "wandb", "insightface"}  # extras, imported where they are used


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in sorted((ROOT / "trainer").rglob("*.py"))}


def imported(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """Dotted names that an import statement of a module asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    package = module.split(".") if FILES[module].name == "__init__.py" else module.split(".")[:-1]
    parts = package[: len(package) - node.level + 1] if node.level else []
    start = ".".join([*parts, *([node.module] if node.module else [])])
    inside = [f"{start}.{alias.name}" for alias in node.names if f"{start}.{alias.name}" in FILES]
    return inside or [start]


def imports(module: str) -> list[str]:
    tree = ast.parse(FILES[module].read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [name for node in nodes for name in imported(module, node)]


def test_there_are_no_circles() -> None:
    graph = {module: {name for name in imports(module) if name in FILES} for module in FILES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert len(order) == len(FILES) and sum(map(len, graph.values())) > 100


def test_rooms_import_one_way() -> None:
    """Each room imports from those before it; `data` knows neither bases nor what they are trained for."""
    rooms = ["settings", "data", "base", "step", "sampling", "run", "commands"]
    for module in FILES:
        room = module.split(".")[1] if module.count(".") > 1 else ""
        if room in rooms:
            found = {name.split(".")[1] for name in imports(module) if name in FILES and name.count(".") > 1}
            assert found <= set(rooms[: rooms.index(room) + 1]), module
    heavy = {"diffusers", "transformers", "open_clip", "accelerate"}
    data = {name.split(".")[0] for module in FILES if module.startswith("trainer.data.") for name in imports(module)}
    assert "torch" in data and not data & heavy


def test_functions_import_nothing_but_extras() -> None:
    """`__main__` apart, whose commands import what they need when they are called, so that --help is quick."""
    for module, path in FILES.items():
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        late = [node for f in functions for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name.split(".")[0] for node in late for name in imported(module, node)}
        assert module == "trainer.__main__" or names <= OPTIONAL, (module, names)
