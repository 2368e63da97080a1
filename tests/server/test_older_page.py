"""Older graphs in ComfyUI's page: every id and weight type, as they were saved then; opened, run, saved, opened again.

The server is one of its own with small models alone, so that unified loaders find nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import models, needs, older_features, older_graphs, published
from tests.support.older_graphs import CONTRACT, Scene, widgets_of
from tools import face_models
from tools.comfyui import ROOT, find_or_fetch
from tools.page import Page, find_browser, open_page
from tools.server import Result, Server

pytestmark = pytest.mark.comfy
GRAPHS = dict(older_graphs.graphs())
SMALL_NODES = ROOT / "tests" / "support" / "small_nodes"


def write_models(folder: Path) -> None:
    """Adapters for the small models, an encoder of ViT-H's widths, and a face model that finds a face anywhere."""
    sd15, sdxl = models.comfy_model("SD15", 32), models.comfy_model("SDXL", 32)
    with torch.device("meta"):
        projection = published.oracles.IdentityProjection(768, 512, 16)
    base = models.adapter_weights("base", sd15)
    faces = published.filled({f"image_proj.{key}": value for key, value in projection.state_dict().items()})
    files = {
        "ipadapter/base_sd15": base,
        "ipadapter/base_sdxl": models.adapter_weights("base", sdxl),
        "ipadapter/composition_sd15": models.adapter_weights("plus", sd15),
        "ipadapter/portrait_sd15": faces | {key: value for key, value in base.items() if key.startswith("ip_adapter.")},
        "clip_vision/encoder": older_features.encoder_weights(),
    }
    for name, weights in files.items():
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        models.core.write_safetensors(path, weights, {})
    face_models.detector(folder / "insightface" / "models" / "buffalo_l" / "det_10g.onnx", in_the_middle=True)
    face_models.recogniser(folder / "insightface" / "models" / "buffalo_l" / "w600k_r50.onnx")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("older")
    write_models(folder / "models")
    (folder / "server" / "input").mkdir(parents=True)
    torch.save(torch.randn(2, 1024), folder / "server" / "input" / "saved.ipadpt")
    with Server(find_or_fetch(), folder / "server", folder / "models", [SMALL_NODES]) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    if find_browser() is None:
        needs.missing("chromium, chromium-browser or google-chrome")
    with open_page(server.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain(server: Server, page: Page) -> str:
    """The digest without any adapter."""
    scene = Scene()
    page.open(scene.sampled(scene.models))
    return server.run(page.prompt()).history["outputs"][str(len(scene.graph.nodes))]["text"][0]


def shown(server: Server, result: Result) -> dict[str, Any]:
    """What a run showed, by node: texts, and the bytes of pictures."""
    found = {}
    for node, output in result.history["outputs"].items():
        pictures = [
            server.folder / picture["type"] / picture["subfolder"] / picture["filename"]
            for picture in output.get("images", ())
        ]
        found[node] = [*output.get("text", ()), *(pixels(path) for path in pictures)]
    return found


def pixels(path: Path) -> bytes:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.tobytes()


def programs(prompt: dict[str, Any], absent: Any) -> dict[str, Any]:
    """The prompt as programs send it: no titles; optional inputs without a link are null, or not there at all."""
    made = {}
    for number, node in prompt.items():
        inputs = dict(node["inputs"])
        known = CONTRACT.get(node["class_type"], {"inputs": {}})["inputs"]
        optional = [name for name, row in known.items() if row["optional"]]
        for name in (*optional, "exact") if known else ():
            if not isinstance(inputs.get(name), list):
                inputs.pop(name, None)
                if absent is None and name in (*optional, *node["inputs"]):
                    inputs[name] = None
        made[number] = {"class_type": node["class_type"], "inputs": inputs}
    return made


def older_nodes(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for node in workflow["nodes"] if node["type"] in CONTRACT]


def test_every_id_is_in_a_graph() -> None:
    assert {node["type"] for graph in GRAPHS.values() for node in older_nodes(graph)} == set(CONTRACT)


@pytest.mark.parametrize("name", GRAPHS)
def test_an_older_graph(name: str, server: Server, page: Page, plain: str) -> None:
    workflow, before = GRAPHS[name], len(page.errors)
    page.open(workflow)
    assert page.missing() == [] and page.errors[before:] == []
    prompt = page.prompt()
    for node in older_nodes(workflow):
        inputs, widgets = prompt[str(node["id"])]["inputs"], widgets_of(node["type"])
        wanted = widgets | dict(zip(widgets, node["widgets_values"]))
        linked = {socket["name"]: socket["link"] for socket in node["inputs"] if socket["link"] is not None}
        assert {key: value for key, value in inputs.items() if key in widgets and key not in linked} == {
            key: value for key, value in wanted.items() if key not in linked
        }
        assert inputs.get("exact", False) is False
        links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
        assert {key: value for key, value in inputs.items() if isinstance(value, list)} == {
            key: links[link] for key, link in linked.items()
        }
    saved = page.graph()
    for node, again in zip(workflow["nodes"], saved["nodes"], strict=True):
        if node["type"] in CONTRACT:
            assert again["widgets_values"][: len(node["widgets_values"])] == node["widgets_values"]
    page.open(saved)
    assert page.prompt() == prompt

    found = shown(server, server.run(prompt, workflow))
    assert found and plain not in [text for one in found.values() for text in one]
    for absent in (None, "left out"):
        assert shown(server, server.run(programs(prompt, absent))) == found, absent
