"""Every supported Python compiles the code, the oldest parses it, and an older ComfyUI gets one sentence."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("ipadapter_core", "nodes", "trainer", "pocket", "tools", "demo", "bench", "tests")
CODE = [ROOT / "__init__.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
COMPILE = """
import sys
for path in sys.stdin.read().splitlines():
    with open(path, "rb") as file:
        compile(file.read(), path, "exec", dont_inherit=True)
print("%d.%d" % sys.version_info[:2])
"""


def interpreters() -> dict[str, str]:
    """The Pythons of this machine that we support, by version: on the path, or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for version in SUPPORTED:
        own = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
        if path := next(iter(own), None) or shutil.which(f"python{version}"):
            found[version] = path
    return found | {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}


def test_all_rooms_parse_as_the_oldest_python() -> None:
    oldest = tuple(map(int, SUPPORTED[0].split(".")))
    assert len(CODE) > 200
    for path in CODE:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=oldest)


@pytest.mark.parametrize("version", interpreters())
def test_all_rooms_compile(version: str) -> None:
    """By every supported Python that this machine has; only the one that runs the tests has the packages to do more."""
    command = [interpreters()[version], "-W", "error", "-c", COMPILE]
    done = subprocess.run(command, input="\n".join(map(str, CODE)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == version


@pytest.mark.parametrize(("version", "is_refused"), [("0.3.10", True), ("0.30.0", False), ("1.0.0", False)])
def test_an_older_comfyui_gets_a_sentence(tmp_path: Path, version: str, is_refused: bool) -> None:
    (tmp_path / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    code = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path({str(ROOT / '__init__.py')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode != 0) == is_refused
    if is_refused:
        assert f"needs ComfyUI 0.30.0 or newer, this is {version}: update ComfyUI" in done.stderr
