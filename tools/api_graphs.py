"""The graphs of workflows/ by their short names, and smaller versions of them for machines without a GPU."""

from __future__ import annotations

import copy
import json
from typing import Any

from tools.comfyui import ROOT
from tools.graphs.cards import CARDS

Prompt = dict[str, Any]
FOLDER = ROOT / "workflows"
NAMES = list(CARDS)  # as in `tools.graphs`; the files bear their titles


def workflow(name: str) -> dict[str, Any]:
    """A workflow in page format, as the page shows it and saved pictures carry it."""
    return json.loads((FOLDER / f"{CARDS[name].title}.json").read_text(encoding="utf-8"))


def prompt(name: str) -> Prompt:
    """The same in API form, as /prompt takes it."""
    return json.loads((FOLDER / "api" / f"{CARDS[name].title}.json").read_text(encoding="utf-8"))


def inputs_of(content: Prompt, kind: str) -> dict[str, Any]:
    """The inputs of the one node of a kind, to read or to change. Raises ValueError when there is not exactly one."""
    found = [node["inputs"] for node in content.values() if node["class_type"] == kind]
    if len(found) != 1:
        raise ValueError(f"the prompt has {len(found)} nodes of kind {kind}, expected 1")
    return found[0]


def smaller(content: Prompt, size: int, steps: int) -> Prompt:
    """A copy with latents of `size` pixels (the prompt's own are square), all else in proportion, and fewer steps."""
    result = copy.deepcopy(content)
    nodes = [node["inputs"] for node in result.values()]
    whole = max(inputs["width"] for inputs in nodes if "width" in inputs)
    for inputs in nodes:
        for name in ("width", "height", "x", "y"):
            if name in inputs:
                inputs[name] = inputs[name] * size // whole
        if "steps" in inputs:
            inputs["steps"] = steps
    return result


def node_of(content: Prompt, title: str) -> str:
    """The number of the one node with a title. Raises ValueError when there is not exactly one."""
    found = [number for number, node in content.items() if node["_meta"]["title"] == title]
    if len(found) != 1:
        raise ValueError(f"the prompt has {len(found)} nodes with the title {title!r}, expected 1")
    return found[0]


def give_files(content: Prompt, title: str, files: list[str]) -> None:
    """Put pictures of the server's input folder, as a batch, in place of the node with a title, whose outputs are
    pictures."""
    number = node_of(content, title)
    loaders = [f"{number}_{place}" for place in range(len(files))]
    for loader, file in zip(loaders, files):
        content[loader] = {"class_type": "LoadImage", "inputs": {"image": file}, "_meta": {"title": file}}
    batch = {f"images.image{place}": [loader, 0] for place, loader in enumerate(loaders)}
    content[number] = {"class_type": "BatchImagesNode", "inputs": batch, "_meta": {"title": title}}
    for node in content.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == number:
                node["inputs"][name] = [number, 0]


def save_as_made(content: Prompt, prefix: str) -> None:
    """Save what is decoded before it is enlarged, and only what has a prefix that ends in this."""
    for number, node in list(content.items()):
        if node["class_type"] != "SaveImage":
            continue
        if not node["inputs"]["filename_prefix"].endswith(prefix):
            del content[number]
            continue
        before = content[node["inputs"]["images"][0]]
        if before["class_type"] == "ImageScaleBy":
            node["inputs"]["images"] = before["inputs"]["image"]
