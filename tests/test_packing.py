"""The archive that the registry makes of this repository: small, legal on every system, and it imports as it is."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from pathspec import PathSpec

from tools.comfyui import find_or_fetch
from tools.server import PACK

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "pocket/weights/"
LARGEST_MB = 8.0  # of everything but pocket's weights
LONGEST_PATH = 120  # Windows' 260 less where people keep a portable ComfyUI
ILLEGAL = set('<>:"|?*\\') | {chr(code) for code in range(32)}
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(10))}
# What the nodes must not need: packages of the trainer, of tests, of faces and of open_clip's tags, and our own by an
# absolute name, which would be another copy of them.
BLOCKED = (
    *("open_clip", "diffusers", "accelerate", "deepspeed", "insightface", "onnxruntime", "pathspec"),
    *("ipadapter_core", "pocket", "trainer", "tools"),
)
LEFT_OUT = ("pocket/weights/judge", "pocket/weights/comparison", "pocket/training", "pocket/evidence", "docs/evidence/")
POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios"}
# In a process of its own: ComfyUI's loader, then pocket's parts out of the archive.
IMPORT = """
import asyncio, json, sys
sys.modules.update(dict.fromkeys({blocked}))
sys.path.insert(0, {comfyui!r})
import comfy.options
comfy.options.enable_args_parsing(False)
from comfy.cli_args import args
args.cpu = True
import nodes
stock = set(nodes.NODE_CLASS_MAPPINGS)
loaded = asyncio.run(nodes.load_custom_node({pack!r}, module_parent="custom_nodes"))
parts = nodes.NODE_CLASS_MAPPINGS["ImagePromptLoadPocket"].execute().result
ours = sorted(set(nodes.NODE_CLASS_MAPPINGS) - stock)
print(json.dumps({{"loaded": loaded, "nodes": ours, "parts": [type(part).__name__ for part in parts]}}))
"""


def tracked() -> dict[str, str]:
    """Every file of the repository, with its git mode."""
    command = ["git", "-C", str(ROOT), "ls-files", "-s", "-z"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return {line.split("\t", 1)[1]: line[:6] for line in lines if line}


def packed() -> list[str]:
    """What the registry packs: tracked files that .comfyignore does not name."""
    ignored = PathSpec.from_lines("gitwildmatch", (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines())
    return [path for path in tracked() if not ignored.match_file(path)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packing") / "node.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in packed():
            file.write(ROOT / name, name)
    return path


def test_the_archive_is_small(archive: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        sizes = {entry.filename: entry.compress_size / 1e6 for entry in file.infolist()}
    weights = sum(size for name, size in sizes.items() if name.startswith(WEIGHTS))
    rest = sum(sizes.values()) - weights
    whole = archive.stat().st_size / 1e6
    print(f"\n{whole:.1f} MB in {len(sizes)} files: {weights:.1f} pocket's weights, {rest:.1f} the rest")
    assert rest < LARGEST_MB
    rooms = {name.split("/")[0] for name in sizes}
    assert not rooms & {"tests", "bench", "demo", "tools", ".ci", ".github"}
    assert not [name for name in sizes if name.startswith(LEFT_OUT)]


def test_names_are_legal_everywhere() -> None:
    """Of the whole repository, since many clone it: Windows' rules, and macOS's, where case and accents clash."""
    files = tracked()
    links = [path for path, mode in files.items() if mode == "120000"]
    illegal = [path for path in files if set(path) & ILLEGAL or any(is_reserved(part) for part in path.split("/"))]
    long = [path for path in files if len(path) > LONGEST_PATH]
    print(f"\n{len(files)} files, the longest path {max(map(len, files))} characters")
    assert (links, illegal, long) == ([], [], [])
    seen: dict[str, str] = {}
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    for path in [*files, *folders]:
        same = seen.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        assert same == path, f"{same} and {path} are one file on Windows and macOS"


def is_reserved(part: str) -> bool:
    return part.split(".")[0].lower().rstrip() in RESERVED or part != part.rstrip(". ")


@pytest.mark.parametrize("room", ["nodes", "ipadapter_core", "pocket"])
def test_code_of_the_nodes_is_of_no_system(room: str) -> None:
    """No backslash, drive or root in a path, no text in the system's own encoding, no module that Windows lacks."""
    for path in (ROOT / name for name in packed() if name.startswith(f"{room}/") and name.endswith(".py")):
        text = path.read_text(encoding="utf-8")
        text.encode("cp1252")  # a Windows console can show it
        assert not re.search(r"""["'](?:[A-Za-z]:\\|/home/|/Users/|/tmp/|/mnt/)""", text), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
                assert not POSIX_ONLY & set(names), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text"):
                assert "encoding" in {one.arg for one in node.keywords}, f"{path}:{node.lineno}"
            assert getattr(node, "attr", "") not in ("symlink_to", "hardlink_to", "fork"), f"{path}:{node.lineno}"


@pytest.mark.slow
@pytest.mark.comfy
def test_the_archive_imports_in_comfyui(archive: Path, tmp_path: Path) -> None:
    """By ComfyUI's own loader, with nothing of the repository in reach and no package that only others need."""
    pack = tmp_path / "custom_nodes" / PACK
    with zipfile.ZipFile(archive) as file:
        file.extractall(pack)
    names = {"blocked": BLOCKED, "comfyui": str(find_or_fetch()), "pack": str(pack)}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", IMPORT.format(**names)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{len(found['nodes'])} nodes; {', '.join(found['parts'])}")
    assert found["loaded"] is True
    contracts = ("node_contract.json", "older_contract.json")
    ids = {name for file in contracts for name in json.loads((ROOT / "tests" / "nodes" / file).read_text())}
    assert set(found["nodes"]) == ids
    assert len(found["parts"]) == 4
