"""Each workflow in a real ComfyUI: its nodes exist, its two forms agree, it runs, and its picture opens again."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocket.places import Places
from tests.support import resolved
from tools import api_graphs as prompts
from tools.comfyui import ROOT
from tools.graphs.cards import CARDS
from tools.page import Page
from tools.server import Result, Server, ServerError

pytestmark = pytest.mark.comfy
SIZE, STEPS = 256, 2
RUN = sorted(prompts.NAMES, key=lambda name: (name == "sdxl", name))  # the largest last, when the others are freed
POCKET = [name for name in prompts.NAMES if name.startswith("pocket_")]  # as they are: small, and with real models


@pytest.fixture(scope="module")
def object_info(server: Server) -> dict[str, Any]:
    return server.get("/object_info")


@pytest.fixture(scope="module")
def results(server: Server) -> Iterator[dict[str, Result]]:
    """What ran so far, by workflow."""
    yield {}
    server.free()


def ran(name: str, server: Server, results: dict[str, Result]) -> Result:
    if name not in results:
        if name == "sdxl":
            server.free()
        results[name] = server.run(asked(name), prompts.workflow(name))
    return results[name]


def asked(name: str) -> prompts.Prompt:
    return prompts.prompt(name) if name in POCKET else prompts.smaller(prompts.prompt(name), SIZE, STEPS)


def test_titles_are_for_people_and_sort_as_they_are_meant():
    """In the browser a title is all that there is: its order, its search, and its file's name on any system."""
    titles = [card.title for card in CARDS.values()]
    assert titles == sorted(titles)
    for folder in (prompts.FOLDER, prompts.FOLDER / "api"):
        assert sorted(path.stem for path in folder.glob("*.json")) == titles
    assert sorted(path.stem for path in prompts.FOLDER.glob("*.jpg")) == titles
    for name, title in zip(CARDS, titles):
        assert re.fullmatch(r"\d\d IP-Adapter [\w ().,-]+", title), title
        assert ("nothing to download" in title) == (name in POCKET)
    assert list(CARDS)[: len(POCKET)] == POCKET


def test_pages_name_templates_as_the_browser_does():
    titles = [card.title for card in CARDS.values()]
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "web").rglob("*.md")]
    found = 0
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert not [name for name in POCKET if f"`{name}`" in text], path
        for title in re.findall(r"[*`](\d\d IP-Adapter [^*`…]+)…?[*`]", text):
            assert any(one.startswith(title.strip()) for one in titles), f"{path}: {title}"
            found += 1
    assert found >= 6


@pytest.mark.parametrize("name", prompts.NAMES)
def test_nodes_and_inputs_resolve(name: str, object_info: dict[str, Any]):
    resolved.check(prompts.prompt(name), object_info)


@pytest.mark.parametrize("name", prompts.NAMES)
def test_published_models_can_be_offered(name: str):
    """Every model file that a workflow names is one that the page can offer, in the folder that its loader reads."""
    offered = {
        model["name"]: (model["url"], model["directory"])
        for node in prompts.workflow(name)["nodes"]
        for model in node["properties"].get("models", ())
    }
    named = {
        value
        for node in prompts.prompt(name).values()
        for value in node["inputs"].values()
        if isinstance(value, str) and value.endswith((".safetensors", ".pth", ".bin"))
    }
    own = {path.name for path in (Places.weights).rglob("*.safetensors")} if name in POCKET else set()
    assert set(offered) == named - own
    for file, (url, _) in offered.items():
        assert url.startswith("https://")
        assert url.rpartition("/")[2] == file, "the page saves a download under the last part of its address"
    if name not in POCKET:
        assert "clip_vision" in {folder for _, folder in offered.values()}, "an encoder that auto finds is offered too"


@pytest.mark.parametrize("name", [name for name in prompts.NAMES if name not in POCKET])
def test_pictures_fit_their_roles(name: str):
    """No picture has two roles: a structure is not its own reference, left is not right."""
    pictures = [
        node["inputs"]["picture"]
        for node in prompts.prompt(name).values()
        if node["class_type"] == "ImagePromptExamplePicture"
    ]
    assert pictures
    assert len(set(pictures)) == len(pictures)
    is_face = "face" in name
    assert all((picture in ("astronaut", "commodore")) == is_face for picture in pictures)


@pytest.mark.parametrize("name", prompts.NAMES)
def test_api_form_is_the_pages_own(name: str, page: Page):
    page.open(prompts.workflow(name))
    assert page.prompt() == prompts.prompt(name)


@pytest.mark.parametrize("name", RUN)
def test_runs_and_the_picture_carries_its_graph(name: str, server: Server, results: dict[str, Result]):
    result = ran(name, server, results)
    print(f"{name}: {result.seconds:.1f} s")
    picture = Image.open(result.pictures[-1])
    assert picture.format == "PNG"
    assert picture.size == (SIZE, SIZE)
    assert np.asarray(picture).std() > 1  # neither black nor of one colour
    assert json.loads(picture.info["workflow"]) == prompts.workflow(name)
    carried = json.loads(picture.info["prompt"])  # ComfyUI adds what it knows of changed files
    assert {key: node["inputs"] for key, node in carried.items()} == {
        key: node["inputs"] for key, node in asked(name).items()
    }


@pytest.mark.parametrize("name", RUN)
def test_a_dropped_picture_opens_its_graph(name: str, server: Server, results: dict[str, Result], page: Page):
    saved: Path = ran(name, server, results).pictures[-1]
    page.open({"nodes": [], "links": [], "version": 0.4})
    assert page.graph()["nodes"] == []
    page.drop(saved.name, base64.b64encode(saved.read_bytes()).decode())
    assert told(page.graph()) == told(prompts.workflow(name))


def told(workflow: dict[str, Any]) -> dict[str, Any]:
    """What a graph is, without how it looks."""
    nodes = {node["id"]: (node["type"], node.get("widgets_values") or [], node["pos"]) for node in workflow["nodes"]}
    return {"nodes": nodes, "links": workflow["links"]}


def test_a_refused_prompt_names_node_and_reason(server: Server):
    content = prompts.prompt("image_prompt")
    prompts.inputs_of(content, "ImagePrompt")["adapter"] = "not_there.safetensors"
    with pytest.raises(ServerError, match=r"ImagePrompt \(node 5\): .*adapter - 'not_there.safetensors' was not found"):
        server.run(content)


def test_a_failed_node_is_named_with_its_reason(server: Server):
    """An SDXL adapter on SD1.5: the message is the node's own sentence."""
    content = prompts.smaller(prompts.prompt("image_prompt"), SIZE, 1)
    prompts.inputs_of(content, "ImagePrompt")["adapter"] = "ip-adapter_sdxl_vit-h.safetensors"
    with pytest.raises(ServerError, match=r"ImagePrompt \(node 5\): .*ip-adapter_sdxl_vit-h.safetensors is for SDXL"):
        server.run(content)


def test_a_saved_picture_names_no_folder(server: Server, results: dict[str, Result]):
    """What a node's fingerprint is goes into the picture's prompt, and pictures are shared."""
    with Image.open(ran("image_prompt", server, results).pictures[0]) as picture:
        content = picture.info["prompt"] + picture.info["workflow"]
    assert str(server.folder) not in content
    assert str(server.models) not in content
