"""Each workflow in a real ComfyUI: its nodes exist, its two forms agree, it runs, and its picture opens again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocket.places import Places
from tools import api_graphs as prompts
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


def test_there_are_these_workflows():
    published = "controlnet image_and_text image_prompt image_to_image inpaint sdxl t2i_adapter two_references"
    faces = "face_id_plus plus_face two_faces"
    pocket = "attention_map controlnet fine_grained image_and_text image_prompt other_look two_references weights"
    controls = "curve frames layers negative regions"
    pocket = f"{pocket} {controls}"
    assert sorted([*published.split(), *faces.split(), *(f"pocket_{name}" for name in pocket.split())]) == prompts.NAMES


@pytest.mark.parametrize("name", prompts.NAMES)
def test_nodes_and_inputs_resolve(name: str, object_info: dict[str, Any]):
    content = prompts.prompt(name)
    for node in content.values():
        described = object_info[node["class_type"]]
        required, optional = (described["input"].get(kind, {}) for kind in ("required", "optional"))
        named = {key.partition(".")[0] for key in node["inputs"]}
        assert set(required) <= named <= set(required) | set(optional), node["class_type"]
        for key, value in node["inputs"].items():
            kind, *settings = described_input(required | optional, key)
            if isinstance(value, list):
                source = object_info[content[value[0]]["class_type"]]
                assert source["output"][value[1]] == kind, f"{node['class_type']}.{key}"
            elif isinstance(kind, list) or kind == "COMBO":
                assert value in (kind if isinstance(kind, list) else settings[0]["options"])


def described_input(inputs: dict[str, Any], key: str) -> list[Any]:
    """Kind and settings of an input; one of a growing group ("regions.region_0") is as the group's template says."""
    group, dot, _ = key.partition(".")
    kind, *settings = inputs[group]
    if not dot:
        return [kind, *settings]
    assert kind == "COMFY_AUTOGROW_V3", f"{key}: {kind}"
    (template,) = (one for part in settings[0]["template"]["input"].values() for one in part.values())
    return template


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
    assert all(url.startswith("https://") for url, _ in offered.values())


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
    with pytest.raises(ServerError, match=r"ImagePrompt \(node 4\): .*adapter - 'not_there.safetensors' was not found"):
        server.run(content)


def test_a_failed_node_is_named_with_its_reason(server: Server):
    """An SDXL adapter on SD1.5: the message is the node's own sentence."""
    content = prompts.smaller(prompts.prompt("image_prompt"), SIZE, 1)
    prompts.inputs_of(content, "ImagePrompt")["adapter"] = "ip-adapter_sdxl_vit-h.safetensors"
    with pytest.raises(ServerError, match=r"ImagePrompt \(node 4\): .*ip-adapter_sdxl_vit-h.safetensors is for SDXL"):
        server.run(content)


def test_a_saved_picture_names_no_folder(server: Server, results: dict[str, Result]):
    """What a node's fingerprint is goes into the picture's prompt, and pictures are shared."""
    with Image.open(ran("image_prompt", server, results).pictures[0]) as picture:
        content = picture.info["prompt"] + picture.info["workflow"]
    assert str(server.folder) not in content
    assert str(server.models) not in content
