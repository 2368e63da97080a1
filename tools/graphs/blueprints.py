"""The subgraph blueprints of subgraphs/: what people ask for, as one node with the few values that matter.

Each is built as a graph: `outside` are the nodes that its inputs come from and its output goes to, all others are in
it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.graphs.faces import FACE_ID_PLUS, faces
from tools.graphs.graph import Graph, Link, Node
from tools.graphs.published import PLUS


@dataclass(frozen=True)
class Blueprint:
    """A subgraph in the making. labels: of its inputs, by the names that the page gives them, which are those of the
    inner inputs. shown: (node, widget, label) of the values on it."""

    title: str
    description: str
    graph: Graph
    outside: tuple[Node, ...]
    labels: dict[str, str]
    shown: tuple[tuple[Node, str, str], ...]


def sink(graph: Graph, model: Link) -> Node:
    """Something that takes a model, so that the blueprint has an output."""
    return graph.add(9, "ModelSamplingDiscrete", model=model)


def style() -> Blueprint:
    graph = Graph()
    base, picture = graph.add(0, "ImagePromptLoadPocket"), graph.picture(0, "Picture", "painting")
    prompt = graph.add(1, "ImagePrompt", model=base["MODEL"], image=picture["IMAGE"], adapter=PLUS, layers="style")
    return Blueprint(
        "IP-Adapter - Style from a picture",
        "Makes a model paint in the style of a picture: only the layers that carry style follow it.",
        graph,
        (base, picture, sink(graph, prompt["MODEL"])),
        {"model": "model", "image": "style picture"},
        ((prompt, "adapter", "adapter"), (prompt, "weight", "weight"), (prompt, "layers", "layers")),
    )


def person() -> Blueprint:
    graph = Graph()
    base, photo = graph.add(0, "ImagePromptLoadPocket"), graph.picture(0, "Photo", "astronaut")
    adapter = graph.add(1, "ImagePromptLoadAdapter", file=FACE_ID_PLUS)
    encoder = graph.load_encoder(2, adapter)
    encoded = faces(graph, 3, "Encode Faces", encoder["encoder"], photo)
    model = graph.apply(4, base["MODEL"], adapter, encoded, weight=0.8)
    applied = graph.nodes[-1]
    return Blueprint(
        "IP-Adapter - Person from a photo",
        "Puts the person of a photo into new pictures, with a FaceID or a plus-face adapter. Needs insightface.",
        graph,
        (base, photo, sink(graph, model)),
        {"image": "photo", "model": "model"},
        (
            (adapter, "file", "adapter"), (encoded, "face_model", "face model"), (applied, "weight", "weight"),
            (applied, "shortcut_scale", "likeness"),
        ),
    )  # fmt: skip


def two_regions() -> Blueprint:
    graph = Graph()
    base = graph.add(0, "ImagePromptLoadPocket")
    pictures = {"left": graph.picture(0, "Left", "cat"), "right": graph.picture(0, "Right", "coffee")}
    adapter = graph.add(1, "ImagePromptLoadAdapter", file=PLUS)
    left = graph.half_mask(1, ("Black, whole", "White, left part", "Left part"), (256, 512), (0, 0))
    white = graph.nodes[-2]
    encoder = graph.load_encoder(2, adapter)
    masks = {"left": left, "right": graph.add(3, "InvertMask", "Right part", mask=left)["MASK"]}
    model, applied = base["MODEL"], []
    for side, picture in pictures.items():
        links = {"encoder": encoder["encoder"], "image": picture["IMAGE"]}
        encoded = graph.add(3, "ImagePromptEncode", f"Encode {side}", **links)
        model = graph.apply(4, model, adapter, encoded, f"Apply {side}", mask=masks[side], weight=0.8)
        applied.append(graph.nodes[-1])
    return Blueprint(
        "IP-Adapter - Two pictures in two regions",
        "The left part of the result follows one picture, the right part another. Where they meet: 256 of 512 is the "
        "middle.",
        graph,
        (base, *pictures.values(), sink(graph, model)),
        {"image": "left picture", "model": "model", "image_1": "right picture"},
        (
            (adapter, "file", "adapter"), (white, "width", "left part, of 512"), (applied[0], "weight", "weight left"),
            (applied[1], "weight", "weight right"),
        ),
    )  # fmt: skip


BLUEPRINTS = {make.__name__: make for make in (style, person, two_regions)}
