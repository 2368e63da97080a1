"""Write workflows/: each graph of `tools.graphs` in page format, its API form and a picture, all by ComfyUI's own page.

`python -m tools.workflows [NAME ...]` writes all or some; it needs Chromium and takes a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import uuid
from pathlib import Path
from typing import Any

from PIL import Image

from tools.comfyui import ROOT, find_or_fetch
from tools.graphs import published as graphs
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
LARGEST = 150_000  # bytes of a picture
ON_POCKET = POCKET_GRAPHS | CONTROL_GRAPHS
ALL_GRAPHS = GRAPHS | ON_POCKET
# Nodes stand in columns, as wide as the widest node in each.
BUILD = """async ({nodes, gap}) => {
    app.graph.clear();
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


def build(page: Page, name: str, graph: Graph) -> dict[str, Any]:
    """A graph in page format, built and laid out by the page."""
    nodes = []
    for node in graph.nodes:
        published = {
            value: MODELS[value] for value in node.inputs.values() if isinstance(value, str) and value in MODELS
        }
        models = [{"name": file, "url": HUB + path, "directory": folder} for file, (folder, path) in published.items()]
        nodes.append(dataclasses.asdict(node) | {"models": models})
    workflow = json.loads(page.tab.evaluate(BUILD, {"nodes": nodes, "gap": 30}))
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-ip-adapter/{name}"))  # the page's own is random
    workflow["extra"] = {}
    return workflow


def write(page: Page, name: str) -> None:
    workflow = build(page, name, ALL_GRAPHS[name]())
    page.open(workflow)
    save_json(FOLDER / f"{name}.json", workflow)
    save_json(FOLDER / "api" / f"{name}.json", page.prompt())
    if name in ON_POCKET:  # its models are real, so its pictures mean something
        page.run()
    page.picture(FOLDER / f"{name}.png")
    save_jpeg(FOLDER / f"{name}.png", FOLDER / f"{name}.jpg")


def save_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_jpeg(source: Path, target: Path) -> None:
    """The best JPEG of a picture that stays below LARGEST, of fewer pixels where it must; the source is removed."""
    picture = Image.open(source).convert("RGB")
    while True:
        for quality in range(90, 40, -5):
            content = io.BytesIO()
            picture.save(content, "JPEG", quality=quality, optimize=True)
            if content.tell() < LARGEST:
                target.write_bytes(content.getvalue())
                source.unlink()
                return
        picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", choices=[*ALL_GRAPHS, []], help="workflows to write; all when none is named"
    )
    names = parser.parse_args().names or list(ALL_GRAPHS)
    if set(names) - ON_POCKET.keys():
        ensure(MODELS_FOLDER)
    MODELS_FOLDER.mkdir(parents=True, exist_ok=True)
    with Server(find_or_fetch(), ROOT / "out" / "workflows", MODELS_FOLDER) as server:
        for name in names:
            with open_page(server.address) as page:  # a fresh one: the page keeps previews by node number
                write(page, name)
            print(FOLDER / f"{name}.json")


if __name__ == "__main__":
    main()
