"""The oldest Python and the oldest ComfyUI: code that parses there, and one sentence."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(
    path
    for folder in ("ipadapter_core", "nodes", "trainer", "pocket", "tools", "demo")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *CODE], ids=lambda path: str(path.relative_to(ROOT)))
def test_parses_as_python_3_10(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


@pytest.mark.parametrize(("version", "is_refused"), [("0.3.10", True), ("0.30.0", False), ("1.0.0", False)])
def test_an_older_comfyui_gets_a_sentence(tmp_path: Path, version: str, is_refused: bool) -> None:
    (tmp_path / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    code = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path({str(ROOT / '__init__.py')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode != 0) == is_refused
    if is_refused:
        assert f"needs ComfyUI 0.30.0 or newer, this is {version}: update ComfyUI" in done.stderr
