"""What ComfyUI's registry and manager ask of pyproject.toml and requirements.txt; and no page has a dead link."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

from tools.comfyui import find_or_fetch
from tools.server import PACK

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, COMFY = SETTINGS["project"], SETTINGS["tool"]["comfy"]
SYSTEMS = ("Microsoft", "POSIX", "MacOS", "OS Independent")
DEVICES = {
    f"Environment :: {name}"
    for name in (
        "GPU :: NVIDIA CUDA",
        "GPU :: AMD ROCm",
        "GPU :: Intel Arc",
        "GPU :: Apple Metal",
        "NPU :: Huawei Ascend",
    )
}
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "pocket" / "README.md"])


def names(lines: list[str]) -> set[str]:
    return {Requirement(line).name.lower().replace("_", "-") for line in lines}


def test_the_name_is_one_for_good() -> None:
    """The registry's rules; and a folder of that name in custom_nodes is what the page shows on every node."""
    name = PROJECT["name"]
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*", name) and len(name) < 100
    assert "comfy" not in name.lower()
    assert name == PACK


def test_the_registrys_fields() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["version"])
    assert set(PROJECT["license"]) <= {"file", "text"} and PROJECT["license"]
    assert PROJECT["description"] and PROJECT["requires-python"] and COMFY["PublisherId"] and COMFY["DisplayName"]
    assert {"Repository", "Documentation", "Bug Tracker"} <= set(PROJECT["urls"])
    for classifier in PROJECT["classifiers"]:
        kind, _, value = classifier.partition(" :: ")
        assert value.startswith(SYSTEMS) if kind == "Operating System" else classifier in DEVICES, classifier


def test_the_oldest_comfyui_is_said_once() -> None:
    oldest = re.search(r"^OLDEST_COMFYUI = \((.*)\)", (ROOT / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert oldest and COMFY["requires-comfyui"] == ">=" + oldest[1].replace(", ", ".")


@pytest.mark.parametrize(("field", "shape"), [("Icon", 1), ("Banner", 21 / 9)])
def test_pictures_are_there_and_of_their_shape(field: str, shape: float) -> None:
    path = ROOT / urlsplit(COMFY[field]).path.split("/main/")[1]
    with Image.open(path) as picture:
        width, height = picture.size
    print(f"\n{field}: {width} x {height}, {path.stat().st_size} bytes")
    assert abs(width / height - shape) < 0.01 and path.stat().st_size < 200_000
    assert field != "Icon" or width <= 400


def test_the_manager_installs_nothing_that_comfyui_has_not() -> None:
    """requirements.txt is pyproject's list less what every ComfyUI has anyway, and never moves torch."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    theirs = (find_or_fetch() / "requirements.txt").read_text(encoding="utf-8").splitlines()
    comfyuis = names([line for line in theirs if line and not line.startswith(("#", "-"))])
    assert names(lines) <= comfyuis
    assert names(lines) <= names(PROJECT["dependencies"]) <= comfyuis
    extras = PROJECT["optional-dependencies"]
    assert {"torch", "diffusers", "accelerate", "open-clip-torch"} <= names(extras["trainer"])
    assert names(extras["deepspeed"]) == {"deepspeed"} and names(extras["open_clip"]) == {"open-clip-torch"}


def test_the_registrys_lint_finds_nothing() -> None:
    """`comfy node validate` runs these: exec, eval, and several statements in a line."""
    command = [sys.executable, "-m", "ruff", "check", ".", "-q", "--select", "S102,S307,E702"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_comfy_tests_workflows_are_there() -> None:
    settings = tomllib.loads((ROOT / "comfy-test.toml").read_text(encoding="utf-8"))
    names = settings["test"]["workflows"]["run"]
    assert names and [name for name in names if not (ROOT / "workflows" / f"{name}.json").is_file()] == []


def test_publishing_refuses_placeholders(tmp_path: Path) -> None:
    """The workflow's guard, run as its runner would: it ends the job while pyproject.toml has no real owner."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8"))
    checkout, guard, publish = workflow["jobs"]["publish"]["steps"]
    assert checkout["uses"].startswith("actions/checkout@")
    assert publish["uses"].startswith("Comfy-Org/publish-node-action@")
    assert publish["with"] == {"personal_access_token": "${{ secrets.REGISTRY_ACCESS_TOKEN }}"}
    for owner, code in (("PLACEHOLDER", 1), ("somebody", 0)):
        (tmp_path / "pyproject.toml").write_text(f'PublisherId = "{owner}"\n', encoding="utf-8")
        assert subprocess.run(["bash", "-e", "-c", guard["run"]], cwd=tmp_path, capture_output=True).returncode == code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    ours = {link.split("#")[0] for link in links if not urlsplit(link).scheme} - {""}
    assert [link for link in sorted(ours) if not (page.parent / link).exists()] == []
