"""The subgraph blueprints: listed by ComfyUI, put on the canvas from the page's search, and used with models."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support import resolved
from tools.blueprints import FOLDER
from tools.graphs.blueprints import BLUEPRINTS, Blueprint
from tools.graphs.graph import Graph
from tools.graphs.pocket import SAMPLING
from tools.page import Page
from tools.server import PACK, Server
from tools.workflows import BUILD, as_tables

pytestmark = pytest.mark.comfy
MADE = {name: make() for name, make in BLUEPRINTS.items()}
PLUS = "pocket_plus.safetensors"
# What is on the node for pocket, where that is not what a blueprint starts with.
FOR_POCKET = {"style": {"adapter": PLUS, "layers": "all"}, "two_regions": {"file": PLUS}}
FOUND = "title => [...document.querySelectorAll('[role=dialog]')].some(one => one.innerText.includes(title))"
# The blueprint between pocket, two pictures and a sampler, by the names that its slots show.
CONNECT = """({sources, values}) => {
    const blueprint = app.graph.nodes.find(node => node.isSubgraphNode?.());
    const of = title => app.graph.nodes.find(node => node.title === title);
    const shown = slot => slot.label ?? slot.name;
    for (const [label, title] of Object.entries(sources))
        of(title).connect(0, blueprint, blueprint.inputs.findIndex(slot => shown(slot) === label));
    blueprint.connect(0, of('KSampler'), 'model');
    for (const [name, value] of Object.entries(values))
        blueprint.widgets.find(widget => widget.name === name).value = value;
    return blueprint.inputs.map(shown);
}"""


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_comfyui_lists_it(made: Blueprint, server: Server):
    listed = {entry["name"]: entry["info"]["node_pack"] for entry in server.get("/global_subgraphs").values()}
    assert listed[made.title] == f"custom_nodes.{PACK}"


def test_the_folder_holds_these_alone():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(made.title for made in MADE.values())


def surroundings(page: Page) -> None:
    """Pocket, two pictures, texts, a sampler and what it saves."""
    graph = Graph()
    pocket = graph.add(0, "ImagePromptLoadPocket")
    for side in ("first", "second"):
        graph.add(0, "ImagePromptExamplePicture", side, picture="cat" if side == "first" else "painting")
    text = graph.add(1, "CLIPTextEncode", text="a star", clip=pocket["CLIP"])["CONDITIONING"]
    latent = graph.add(1, "EmptyLatentImage", width=64, height=64)["LATENT"]
    links = {"model": pocket["MODEL"], "positive": text, "negative": text, "latent_image": latent}
    sampler = graph.add(2, "KSampler", **links, **SAMPLING | {"steps": 2})
    picture = graph.add(3, "VAEDecode", samples=sampler["LATENT"], vae=pocket["VAE"])["IMAGE"]
    graph.add(4, "SaveImage", images=picture, filename_prefix="blueprint")
    page.open({"nodes": [], "links": [], "version": 0.4})
    page.tab.evaluate(BUILD, {"nodes": as_tables(graph), "gap": 30})


def put(page: Page, title: str) -> None:
    """As a user does it: open the search of nodes, type, take the first, click where it is to be."""
    page.tab.keyboard.press("Escape")
    page.tab.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.tab.wait_for_timeout(500)
    page.tab.keyboard.type(" ".join(title.partition(" - ")[2].split()[:2]))  # the page finds no longer words
    page.tab.wait_for_function(FOUND, arg=title, timeout=20_000)
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_function("app.graph.nodes.some(node => node.isSubgraphNode?.())", timeout=10_000)
    page.tab.mouse.click(800, 700)  # until then it hangs on the pointer


@pytest.mark.parametrize("name", MADE)
def test_from_the_search_to_a_picture(name: str, page: Page, server: Server):
    """Its inner nodes are what the server has; on pocket it makes a picture (a person needs insightface's models)."""
    made = MADE[name]
    before = len(page.errors)
    surroundings(page)
    put(page, made.title)
    pictures = [label for name, label in made.labels.items() if name != "model"]
    sources = {"model": "Load Pocket Model"} | dict(zip(pictures, ("first", "second")))
    slots = page.tab.evaluate(CONNECT, {"sources": sources, "values": FOR_POCKET.get(name, {})})
    assert slots == [*made.labels.values(), *(label for _, _, label in made.shown)]
    prompt = page.prompt()
    resolved.check(prompt, server.get("/object_info"))
    inner = {node["class_type"] for number, node in prompt.items() if ":" in number}
    assert inner == {node.kind for node in made.graph.nodes if node not in made.outside}
    assert page.errors[before:] == []
    if name in FOR_POCKET:
        with Image.open(server.run(prompt).pictures[0]) as picture:
            assert picture.size == (64, 64)
            assert np.asarray(picture).std() > 1
