"""Write subgraphs/: each blueprint of `tools.graphs.blueprints`, made by ComfyUI's own page.

`python -m tools.blueprints` needs Chromium. ComfyUI lists what is in subgraphs/ of a pack beside its own blueprints.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from tools.comfyui import ROOT, find_or_fetch
from tools.graphs.blueprints import BLUEPRINTS, Blueprint
from tools.page import Page, open_page
from tools.random_models import ensure
from tools.server import Server
from tools.workflows import MODELS_FOLDER, build, save_json

FOLDER = ROOT / "subgraphs"
CATEGORY = "IP-Adapter"
# What the page's menu does to selected nodes. Sizes and places are kept; the one node is what a blueprint consists of.
CONVERT = """({outside, title, labels}) => {
    const inner = app.graph.nodes.filter(node => !outside.includes(Number(node.id)));
    const {subgraph, node} = app.graph.convertToSubgraph(new Set(inner));
    subgraph.name = node.title = title;
    for (const input of subgraph.inputs) input.label = labels[input.name];
    const {nodes, subgraphs} = app.canvas._serializeItems([node]);
    return JSON.stringify({nodes, subgraphs});
}"""


def blueprint(page: Page, made: Blueprint) -> dict[str, Any]:
    """A blueprint as the page saves it: a graph of one subgraph node, with its values promoted onto that node."""
    page.open(build(page, made.title, made.graph))
    outside = [node.number for node in made.outside]
    found = json.loads(page.tab.evaluate(CONVERT, {"outside": outside, "title": made.title, "labels": made.labels}))
    (node,), (subgraph,) = found["nodes"], found["subgraphs"]
    for slot in node["inputs"]:
        slot["link"] = None
    for slot in node["outputs"]:
        slot["links"] = []
    node["pos"] = [0, 0]
    node["properties"]["proxyWidgets"] = [[str(one.number), widget] for one, widget, _ in made.shown]
    assert [slot["name"] for slot in subgraph["inputs"]] == list(made.labels)
    subgraph["name"] = made.title
    whole = {"nodes": [node], "links": [], "version": 0.4, "definitions": {"subgraphs": [subgraph]}}
    page.open(whole)  # what is promoted becomes inputs of the subgraph
    return labelled(page.graph(), made)


def labelled(content: dict[str, Any], made: Blueprint) -> dict[str, Any]:
    """With names for people on the promoted values, ids that stay, and nothing of the page it was made in."""
    (subgraph,) = content["definitions"]["subgraphs"]
    slots = subgraph["inputs"][len(made.labels) :]
    for slot, (_, widget, label) in zip(slots, made.shown, strict=True):
        assert slot["name"].startswith(widget), (slot["name"], widget)
        slot["label"] = label
    (node,) = content["nodes"]
    for shown, slot in zip(node["inputs"], subgraph["inputs"], strict=True):
        shown["label"] = slot["label"]
    subgraph |= {"category": CATEGORY, "description": made.description}  # the page reads them, and writes neither
    text = json.dumps(content | {"extra": {}})
    sockets = [slot["id"] for slot in (*subgraph["inputs"], *subgraph["outputs"])]
    for number, own in enumerate((content["id"], subgraph["id"], *sockets)):  # the page's own are random
        text = text.replace(own, str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-ip-adapter/{made.title}/{number}")))
    return json.loads(text)


def main() -> None:
    ensure(MODELS_FOLDER)
    with (
        Server(find_or_fetch(), ROOT / "out" / "workflows", MODELS_FOLDER) as server,
        open_page(server.address) as page,
    ):
        for make in BLUEPRINTS.values():
            made = make()
            save_json(FOLDER / f"{made.title}.json", blueprint(page, made))
            print(FOLDER / f"{made.title}.json")


if __name__ == "__main__":
    main()
