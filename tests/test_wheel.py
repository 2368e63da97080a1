"""The wheel holds the core and the trainer, whole, and nothing that would stand in another package's way."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ipadapter_core", "trainer")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tracked files, unpacked. Offline."""
    folder = tmp_path_factory.mktemp("wheel")
    source, built, unpacked = folder / "source", folder / "built", folder / "unpacked"
    for path in sources():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--wheel-dir"]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(built), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(unpacked)
    return unpacked


def sources() -> list[str]:
    """What a build may see: every room's code, so that one that should stay out could come in."""
    found = [path for room in (*PACKAGES, "nodes", "pocket", "tools", "demo", "tests") for path in files(room)]
    return [*found, "pyproject.toml", "README.md", "LICENSE", "__init__.py"]


def files(room: str) -> list[str]:
    kinds = (".py", ".toml", ".json")
    return sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / room).rglob("*") if p.suffix in kinds)


def test_it_installs_two_packages(wheel: Path) -> None:
    found = sorted(path.name for path in wheel.iterdir() if path.suffix != ".dist-info")
    print(f"\ntop level: {', '.join(found)}")
    assert found == sorted(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_it_holds_every_module_and_all_data(wheel: Path, package: str) -> None:
    """Compared with the tree, so that a new room cannot be forgotten."""
    held = {path.relative_to(wheel).as_posix() for path in (wheel / package).rglob("*") if path.is_file()}
    assert held == set(files(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_its_commands_run_from_an_empty_folder(wheel: Path, package: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", package, "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(wheel)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m {package}" in done.stdout
