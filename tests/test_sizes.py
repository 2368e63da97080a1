"""How much of each room has to be read at once: files and functions stay short. Prints the table of the docs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    *("ipadapter_core/method", "ipadapter_core/facts", "ipadapter_core/files"),
    *("nodes", "trainer", "pocket", "tools", "tests", "bench", "demo"),
)
FILE, FUNCTION = 300, 63  # lines; a schema of a node is a table and longer than code should be


def functions(tree: ast.AST) -> list[tuple[int, str]]:
    """Lines and name of every function, decorators left out."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [(node.end_lineno - node.lineno + 1, node.name) for node in ast.walk(tree) if isinstance(node, kinds)]


@pytest.mark.parametrize("room", ROOMS)
def test_files_and_functions_are_short(room: str) -> None:
    files = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / room).rglob("*.py"))}
    lines = {path: len(text.splitlines()) for path, text in files.items()}
    found = [(*one, path) for path, text in files.items() for one in functions(ast.parse(text))]
    longest, (length, name, place) = max(lines, key=lambda path: lines[path]), max(found)
    print(
        f"{room}: {sum(lines.values())} lines in {len(files)} files; longest file {longest.name}, {lines[longest]}; "
        f"longest function {place.name}:{name}, {length}"
    )
    assert [path.name for path, count in lines.items() if count > FILE] == []
    assert [f"{path.name}:{name}" for count, name, path in found if count > FUNCTION] == []
