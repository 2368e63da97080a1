"""The graphs of workflows/ that show one control each, on the small model that comes with this pack."""

from __future__ import annotations

from typing import Any

from pocket.world.settings import HALF_WEIGHT, TEXT_WEIGHT
from tools.graphs.graph import Graph, Link, Node
from tools.graphs.pocket import ADAPTER, PLUS, SIDE, TRY, PocketGraph

FALLING, RISING = ({"points": [[0, y], [1, 1 - y]], "interpolation": "linear"} for y in (1, 0))
COLOURS, PATTERN = "0: 1, 5-6: 1", "1: 1, 4: 1"  # attention modules of pocket that carry these: docs/controls
FRAMES = 8


class ControlGraph(PocketGraph):
    """A graph in the making, with an adapter and an encoder of its own."""

    def load_parts(self, adapter: str = PLUS) -> tuple[Node, Node, Node]:
        """Model, adapter and encoder; the adapter tells what it has loaded."""
        pocket, loaded = self.load(), self.add(0, "ImagePromptLoadAdapter", None, 150, file=adapter)
        return pocket, loaded, self.load_encoder(1, loaded)

    def encoded(self, column: int, encoder: Node, picture: Node, title: str | None = None) -> Node:
        links = {"encoder": encoder["encoder"], "image": picture["picture"]}
        return self.add(column, "ImagePromptEncode", title, **links)

    def rectangle(self, column: int, title: str, size: tuple[int, int], at: tuple[int, int]) -> Link:
        """A white rectangle on black, in this column and the next."""
        black = self.add(column, "SolidMask", "Black", value=0.0, width=SIDE, height=SIDE)
        white = self.add(column, "SolidMask", title, value=1.0, width=size[0], height=size[1])
        links = {"destination": black["MASK"], "source": white["MASK"]}
        return self.add(column + 1, "MaskComposite", title, **links, x=at[0], y=at[1], operation="add")["MASK"]

    def compared(
        self, name: str, parts: tuple[Node, Node], prompt: Node, words: str, kinds: dict[str, dict[str, Any]]
    ) -> None:
        """One Apply and one result for each kind, from the same noise; parts: pocket and adapter."""
        pocket, adapter = parts
        texts, latent = self.said(1, pocket["CLIP"], words), self.latents(1, 2)
        for title, settings in kinds.items():
            patched = self.apply(3, pocket["MODEL"], adapter, prompt, f"Apply, {title.lower()}", **settings)
            saved = f"{name}_{title.lower().replace(' ', '_')}"
            self.result(4, saved, pocket["VAE"], patched, texts, latent, title, 270)


def pocket_layers() -> Graph:
    graph = ControlGraph()
    graph.note(
        f"**Which layers follow the picture.** {TRY}\n\n"
        "*Layer Weights* names layers by a preset or one by one. In pocket 0, 5 and 6 carry colours, 1 and 4 the "
        "pattern; the text keeps the shape. After a run *Apply* says which layers your model has.",
        170,
    )
    pocket, adapter, encoder = graph.load_parts(ADAPTER)
    reference = graph.drawn(0, "Reference", "star", "purple", "orange", "stripes", "big")
    prompt = graph.encoded(2, encoder, reference)
    kinds = {
        title: {"layer_weights": graph.add(1, "ImagePromptLayers", f"Layers, {title.lower()}", 200, by_layer=text)}
        for title, text in {"All layers": "", "Colours": COLOURS, "Pattern": PATTERN}.items()
    }
    linked = {title: {name: node["layer weights"] for name, node in one.items()} for title, one in kinds.items()}
    graph.compared("pocket_layers", (pocket, adapter), prompt, "a circle", linked)
    return graph


def pocket_curve() -> Graph:
    graph = ControlGraph()
    graph.note(
        f"**When the picture counts.** {TRY}\n\n"
        "A curve is a factor of *weight* over the sampling, from its start (left) to its end. Pattern and size are "
        "decided early, the outline late: *Falling* leaves it to the text, *Rising* does not. Both have the same mean.",
        170,
    )
    pocket, adapter, encoder = graph.load_parts()
    reference = graph.drawn(0, "Reference", "triangle", "red", "sky", "dots", "small")
    prompt = graph.encoded(2, encoder, reference)
    kinds = {}
    for title, curve in {"Falling": FALLING, "Rising": RISING}.items():
        editor = graph.add(1, "CurveEditor", f"Curve, {title.lower()}", 200, curve=curve)
        kinds[title] = {"weight": 2 * TEXT_WEIGHT, "curve": editor["curve"]}
    graph.compared("pocket_curve", (pocket, adapter), prompt, "a heart", kinds)
    return graph


def pocket_negative() -> Graph:
    graph = ControlGraph()
    graph.note(
        f"**What to move away from.** {TRY}\n\n"
        "*Both* shows two pictures at once, so they are mixed. With the second one as *negative* its part is taken "
        "away again, and what is left is the first.",
        150,
    )
    pocket, adapter, encoder = graph.load_parts(ADAPTER)
    first = graph.drawn(0, "Reference", "cross", "black", "pink", "plain", "big")
    second = graph.drawn(0, "What to avoid", "square", "green", "orange", "stripes", "big")
    one, two = (
        graph.encoded(2, encoder, first, "Encode the reference"),
        graph.encoded(2, encoder, second, "Encode the other"),
    )
    both = graph.add(2, "ImagePromptCombine", None, first=one["image prompt"], second=two["image prompt"])
    kinds: dict[str, dict[str, Any]] = {"Both": {}, "With the negative": {"negative": two["image prompt"]}}
    graph.compared("pocket_negative", (pocket, adapter), both, "", kinds)
    return graph


def pocket_regions() -> Graph:
    graph = ControlGraph()
    graph.note(
        f"**Three pictures, each in its own part.** {TRY}\n\n"
        "Each *Region* is a reference and a mask. The one without a mask is the background: all that the others leave. "
        "A region may have a text of its own; where it has none, the text of *Regional Prompts* counts.",
        170,
    )
    pocket, adapter, encoder = graph.load_parts()
    text = graph.said(1, pocket["CLIP"], "a circle")
    own = graph.add(1, "CLIPTextEncode", "Text of the lower left", 110, text="a circle on white", clip=pocket["CLIP"])
    pictures = {
        "Upper half": ("circle", "red", "sky", "plain", "big"),
        "Lower left": ("circle", "blue", "white", "plain", "big"),
        "Background": ("circle", "yellow", "mint", "dots", "big"),
    }
    masks = {
        "Upper half": graph.rectangle(1, "Upper half", (SIDE, SIDE // 2), (0, 0)),
        "Lower left": graph.rectangle(1, "Lower left", (SIDE // 2, SIDE // 2), (0, SIDE // 2)),
    }
    regions = {}
    for number, (title, attributes) in enumerate(pictures.items()):
        drawn = graph.drawn(0, f"Picture, {title.lower()}", *attributes)
        prompt = graph.encoded(2, encoder, drawn, f"Encode {title.lower()}")
        links = {"mask": masks[title]} if title in masks else {}
        links |= {"text": own["CONDITIONING"]} if title == "Lower left" else {}
        region = graph.add(
            3, "ImagePromptRegion", title, image_prompt=prompt["image prompt"], **links, weight=HALF_WEIGHT
        )
        regions[f"regions.region_{number}"] = region["region"]
    joined = graph.add(
        4, "ImagePromptRegions", model=pocket["MODEL"], adapter=adapter["adapter"], text=text[0], **regions
    )
    texts = (joined["positive"], text[1])
    graph.result(4, "pocket_regions", pocket["VAE"], joined["MODEL"], texts, graph.latents(2))
    return graph


def pocket_frames() -> Graph:
    graph = ControlGraph()
    graph.note(
        f"**A weight for each frame.** {TRY}\n\n"
        "*Weights over Frames* makes a list of keyframes; linked to *weight*, each latent of the batch gets its own. "
        "All frames start from the same noise, so only the weight changes: from the text to the picture.",
        170,
    )
    pocket, adapter, encoder = graph.load_parts()
    reference = graph.drawn(0, "Reference", "square", "green", "pink", "checks", "big")
    prompt = graph.encoded(2, encoder, reference)
    weights = graph.add(1, "ImagePromptFrameWeights", None, 190, keyframes=f"0: 0, {FRAMES - 1}: 1.2", frames=FRAMES)
    model = graph.apply(3, pocket["MODEL"], adapter, prompt, weight=weights["weights"])
    texts = graph.said(1, pocket["CLIP"], "a moon")
    batch = graph.add(1, "EmptyLatentImage", width=SIDE, height=SIDE, batch_size=FRAMES)
    same = graph.add(2, "LatentBatchSeedBehavior", "The same noise", samples=batch["LATENT"], seed_behavior="fixed")
    graph.result(4, "pocket_frames", pocket["VAE"], model, texts, same["LATENT"])
    return graph


CONTROL_GRAPHS = {
    make.__name__: make for make in (pocket_layers, pocket_curve, pocket_negative, pocket_regions, pocket_frames)
}
