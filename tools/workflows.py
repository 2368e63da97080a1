"""Write workflows/: each graph of `tools.graphs` in page format and its API form, by ComfyUI's own page, and its card.

`python -m tools.workflows [NAME ...]` writes all or some; it needs Chromium and takes a minute. Pocket's graphs run, so
that their cards show what they make.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import uuid
from pathlib import Path
from typing import Any

from PIL import Image

from tools.api_graphs import node_of
from tools.cards import EXAMPLES, Labelled, card_of, save_card
from tools.comfyui import ROOT, find_or_fetch
from tools.graphs import published as graphs
from tools.graphs.cards import CARDS, Card, Cell
from tools.graphs.controls import CONTROL_GRAPHS
from tools.graphs.faces import FACE_GRAPHS, FACE_MODELS
from tools.graphs.graph import Graph
from tools.graphs.pocket import POCKET_GRAPHS
from tools.graphs.published import HUB
from tools.page import Page, open_page
from tools.random_models import ensure
from tools.server import Server

FOLDER = ROOT / "workflows"
GRAPHS = graphs.GRAPHS | FACE_GRAPHS
MODELS = graphs.MODELS | FACE_MODELS
MODELS_FOLDER = ROOT / "out" / "random_models"
ON_POCKET = POCKET_GRAPHS | CONTROL_GRAPHS
ALL_GRAPHS = GRAPHS | ON_POCKET
# Nodes stand in columns, as wide as the widest node in each. The page keeps values by the ids of graph and node.
BUILD = """async ({nodes, gap}) => {
    app.graph.clear();
    app.graph.id = crypto.randomUUID();
    const built = {};
    for (const {number, kind, title, inputs, models} of nodes) {
        const node = built[number] = LiteGraph.createNode(kind);
        if (title) node.title = title;
        if (models.length) node.properties.models = models;
        app.graph.add(node);
        const widgets = Object.fromEntries(node.widgets?.map(widget => [widget.name, widget]) ?? []);
        for (const [name, value] of Object.entries(inputs)) {
            if (Array.isArray(value)) continue;
            if (!widgets[name]) throw new Error(`${kind} has no value ${name}`);
            widgets[name].value = value;
            widgets[name].callback?.(value);
        }
        if (widgets.control_after_generate) widgets.control_after_generate.value = 'fixed';
    }
    for (const {number, kind, inputs} of nodes)
        for (const [name, value] of Object.entries(inputs).filter(([_, value]) => Array.isArray(value))) {
            const from = built[value[0]];
            if (!from.connect(from.findOutputSlot(value[1]), built[number], name))
                throw new Error(`no link from ${value[1]} of ${from.type} to ${name} of ${kind}`);
        }
    await new Promise(resolve => setTimeout(resolve, 1500));  // loaded pictures change the sizes
    const wide = node => Math.max(node.computeSize()[0], ...(node.widgets ?? [])
        .filter(widget => ['combo', 'text'].includes(widget.type))
        .map(widget => Math.min(460, 90 + 7 * `${widget.name}${widget.value}`.length)));
    let left = 0;
    for (let column = 0; nodes.some(node => node.column === column); column++) {
        const here = nodes.filter(node => node.column === column).map(node => [built[node.number], node.tall]);
        const width = Math.max(220, ...here.map(([node]) => wide(node)));
        let y = 0;
        for (const [node, tall] of here) {
            node.setSize([width, Math.max(tall ?? 0, node.computeSize()[1])]);
            node.pos = [left, y];
            y += node.size[1] + gap + LiteGraph.NODE_TITLE_HEIGHT;
        }
        left += width + 2 * gap;
    }
    return JSON.stringify(app.graph.serialize());
}"""


def as_tables(graph: Graph) -> list[dict[str, Any]]:
    """The nodes of a graph as BUILD takes them, with the addresses of the published models that they name."""
    tables = []
    for node in graph.nodes:
        published = {
            value: MODELS[value] for value in node.inputs.values() if isinstance(value, str) and value in MODELS
        }
        models = [{"name": file, "url": HUB + path, "directory": folder} for file, (folder, path) in published.items()]
        tables.append(dataclasses.asdict(node) | {"models": models})
    return tables


def build(page: Page, name: str, graph: Graph) -> dict[str, Any]:
    """A graph in page format, built and laid out by the page."""
    workflow = json.loads(page.tab.evaluate(BUILD, {"nodes": as_tables(graph), "gap": 30}))
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-ip-adapter/{name}"))  # the page's own is random
    workflow["extra"] = {}
    return workflow


def write(server: Server, page: Page, name: str) -> None:
    card = CARDS[name]
    workflow = build(page, name, ALL_GRAPHS[name]())
    page.open(workflow)
    prompt = page.prompt()
    save_json(FOLDER / f"{card.title}.json", workflow)
    save_json(FOLDER / "api" / f"{card.title}.json", prompt)
    cells, insets = made(server, prompt, card) if card.cells else (given(prompt), [])
    save_card(card_of(cells, insets, card.foot), FOLDER / f"{card.title}.jpg")


def made(server: Server, prompt: dict[str, Any], card: Card) -> tuple[list[Labelled], list[Image.Image]]:
    """What nodes of a card show after a run: its cells and its insets."""
    outputs = server.run(prompt).history["outputs"]

    def shown(cell: Cell) -> Image.Image:
        file = outputs[node_of(prompt, cell.node)]["images"][cell.number]
        return Image.open(server.folder / file["type"] / file["subfolder"] / file["filename"])

    return [(cell.label, shown(cell)) for cell in card.cells], [shown(Cell(title)) for title in card.insets]


def given(prompt: dict[str, Any]) -> list[Labelled]:
    """The example pictures that a graph starts from, with what they are to it."""
    nodes = [node for node in prompt.values() if node["class_type"] == "ImagePromptExamplePicture"]
    return [
        (node["_meta"]["title"].lower(), Image.open(EXAMPLES / f"{node['inputs']['picture']}.webp")) for node in nodes
    ]


def save_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", choices=[*ALL_GRAPHS, []], help="workflows to write; all when none is named"
    )
    names = parser.parse_args().names or list(ALL_GRAPHS)
    if set(names) - ON_POCKET.keys():
        ensure(MODELS_FOLDER)
    MODELS_FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        Server(find_or_fetch(), ROOT / "out" / "workflows", MODELS_FOLDER) as server,
        open_page(server.address) as page,
    ):
        for name in names:
            write(server, page, name)
            print(FOLDER / f"{CARDS[name].title}.json")


if __name__ == "__main__":
    main()
