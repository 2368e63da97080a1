"""Graphs of the older nodes as ComfyUI's page saved them then: widgets' values in their order, links by number.

Written from the published inputs; models are those of `small_nodes`, files those that `models_folder` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONTRACT = json.loads((Path(__file__).parents[1] / "nodes" / "older_contract.json").read_text())
WIDGETS = ("FLOAT", "INT", "STRING", "BOOLEAN", "COMBO")
# Of ComfyUI's own nodes and of the tests': sockets, outputs; their values are given whole.
OTHERS: dict[str, tuple[dict[str, str], list[list[str]]]] = {
    "TestSmallModels": ({}, [["MODEL", "MODEL"], ["CLIP_VISION", "CLIP_VISION"], ["CONDITIONING", "CONDITIONING"],
                             ["CONDITIONING", "CONDITIONING"]]),
    "EmptyImage": ({}, [["IMAGE", "IMAGE"]]),
    "ImageBatch": ({"image1": "IMAGE", "image2": "IMAGE"}, [["IMAGE", "IMAGE"]]),
    "SolidMask": ({}, [["MASK", "MASK"]]),
    "EmptyLatentImage": ({}, [["LATENT", "LATENT"]]),
    "KSampler": ({"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"},
                 [["LATENT", "LATENT"]]),
    "TestLatentDigest": ({"latent": "LATENT"}, []),
    "PreviewImage": ({"images": "IMAGE"}, []),
    "MaskPreview": ({"mask": "MASK"}, []),
    "PreviewAny": ({"source": "*"}, [["STRING", "STRING"]]),
}  # fmt: skip
SIZE = 64  # of the pictures that are made, pixels


@dataclass
class Graph:
    """A graph in the making: nodes by number, in page format."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)

    def add(self, kind: str, values: Sequence[Any] = (), **links: tuple[int, int]) -> int:
        """A node with its widgets' values in order, and links by input: (number of a node, its output).

        A widget that is linked was turned into a socket by hand then; its value stayed.
        """
        number = len(self.nodes) + 1
        sockets, outputs = sockets_of(kind)
        turned = {name: CONTRACT[kind]["inputs"][name]["kind"] for name in links if name not in sockets}
        sockets = sockets | turned
        inputs = []
        for slot, (name, socket) in enumerate(sockets.items()):
            link = None
            if name in links:
                source, output = links[name]
                link = len(self.links) + 1
                self.links.append([link, source, output, number, slot, socket])
                self.nodes[source - 1]["outputs"][output]["links"].append(link)
            widget = {"widget": {"name": name}} if name in turned else {}
            inputs.append({"name": name, "type": socket, "link": link} | widget)
        self.nodes.append({
            "id": number, "type": kind, "pos": [320 * (number % 8), 420 * (number // 8)],
            "size": {"0": 300, "1": 300}, "flags": {}, "order": number - 1, "mode": 0, "inputs": inputs,
            "outputs": [
                {"name": name, "type": output, "links": [], "shape": 3, "slot_index": slot}
                for slot, (output, name) in enumerate(outputs)
            ],
            "properties": {"Node name for S&R": kind}, "widgets_values": list(values),
        })  # fmt: skip
        return number

    def page(self) -> dict[str, Any]:
        """What the page saved."""
        return {
            "last_node_id": len(self.nodes), "last_link_id": len(self.links), "nodes": self.nodes,
            "links": self.links, "groups": [], "config": {}, "extra": {}, "version": 0.4,
        }  # fmt: skip


def sockets_of(kind: str) -> tuple[dict[str, str], list[list[str]]]:
    """Sockets of a node by name, and its outputs as (type, name)."""
    if kind in OTHERS:
        return OTHERS[kind]
    known = CONTRACT[kind]
    return (
        {name: row["kind"] for name, row in known["inputs"].items() if row["kind"] not in WIDGETS},
        known["outputs"],
    )


def widgets_of(kind: str) -> dict[str, Any]:
    """An older node's widgets in their order, with the values they begin with."""
    return {
        name: row.get("default", "" if row["kind"] == "STRING" else (row.get("choices") or [0])[0])
        for name, row in CONTRACT[kind]["inputs"].items()
        if row["kind"] in WIDGETS
    }


def values(kind: str, **changed: Any) -> list[Any]:
    widgets = widgets_of(kind)
    assert changed.keys() <= widgets.keys(), f"{kind} has no {changed.keys() - widgets.keys()}"
    return list((widgets | changed).values())


class Scene:
    """A graph with small models, two pictures and an adapter, and what shows results."""

    def __init__(self, base: str = "SD15", file: str = "base_sd15.safetensors") -> None:
        self.graph = Graph()
        self.models = self.graph.add("TestSmallModels", [base])
        self.picture = self.graph.add("EmptyImage", [SIZE, SIZE, 1, 0xFF8000]), 0
        self.other = self.graph.add("EmptyImage", [SIZE, SIZE, 1, 0x0040FF]), 0
        self.both = self.graph.add("ImageBatch", image1=self.picture, image2=self.other), 0
        self.mask = self.graph.add("SolidMask", [0.75, SIZE, SIZE]), 0
        self.model = self.models, 0
        self.clip = self.models, 1
        self.adapter = self.graph.add("IPAdapterModelLoader", [file]), 0

    def apply(self, kind: str, given: Mapping[str, Any] | Sequence[Any], **links: tuple[int, int]) -> int:
        """An older node that applies the adapter. given: widgets that differ, or all values as they were saved."""
        saved = values(kind, **given) if isinstance(given, Mapping) else given
        sockets = {"model": self.model, "ipadapter": self.adapter, "clip_vision": self.clip, "image": self.picture}
        sockets = {name: link for name, link in sockets.items() if name in sockets_of(kind)[0]}
        return self.graph.add(kind, saved, **(sockets | links))

    def sampled(self, node: int, output: int = 0) -> dict[str, Any]:
        """The graph with a step of sampling with the MODEL of a node."""
        latent = self.graph.add("EmptyLatentImage", [SIZE, SIZE, 1])
        sampler = self.graph.add(
            "KSampler", [1, "fixed", 1, 7.5, "euler", "normal", 1.0], model=(node, output), positive=(self.models, 2),
            negative=(self.models, 3), latent_image=(latent, 0),
        )  # fmt: skip
        self.graph.add("TestLatentDigest", latent=(sampler, 0))
        return self.graph.page()


def applied(kind: str, *scene: Any, given: Any = None, **links: str) -> dict[str, Any]:
    """One node that applies an adapter, sampled. links: of a socket to one of the scene's."""
    made = Scene(*scene)
    return made.sampled(made.apply(kind, given or {}, **{name: getattr(made, of) for name, of in links.items()}))


def embeds(kind: str) -> dict[str, Any]:
    """Pictures encoded, combined, saved and applied."""
    scene = Scene()
    graph = scene.graph
    encoded = [
        graph.add("IPAdapterEncoder", [weight], ipadapter=scene.adapter, image=image, clip_vision=scene.clip, **more)
        for weight, image, more in ((1.0, scene.picture, {}), (0.5, scene.other, {"mask": scene.mask}))
    ]
    both = graph.add("IPAdapterCombineEmbeds", ["average"], embed1=(encoded[0], 0), embed2=(encoded[1], 0))
    graph.add("IPAdapterSaveEmbeds", [f"older/{kind}"], embeds=(both, 0))
    node = scene.apply(kind, {"weight": 0.75}, pos_embed=(both, 0), neg_embed=(encoded[0], 1))
    return scene.sampled(node)


def loaded_embeds() -> dict[str, Any]:
    scene = Scene()
    found = scene.graph.add("IPAdapterLoadEmbeds", ["saved.ipadpt"]), 0
    return scene.sampled(scene.apply("IPAdapterEmbeds", {}, pos_embed=found))


def regions() -> dict[str, Any]:
    scene = Scene()
    region = [
        scene.graph.add(
            "IPAdapterRegionalConditioning", values("IPAdapterRegionalConditioning", image_weight=weight), image=image,
            **more,
        )
        for weight, image, more in (
            (0.8, scene.picture, {"mask": scene.mask, "positive": (scene.models, 2), "negative": (scene.models, 3)}),
            (0.6, scene.other, {}),
        )
    ]  # fmt: skip
    both = scene.graph.add("IPAdapterCombineParams", params_1=(region[0], 0), params_2=(region[1], 0)), 0
    return scene.sampled(scene.apply("IPAdapterFromParams", {"combine_embeds": "add"}, ipadapter_params=both))


def frames() -> dict[str, Any]:
    """Weights over frames to everything that reads them, and to a node that follows a picture for each latent."""
    scene = Scene()
    graph = scene.graph
    weights = graph.add("IPAdapterWeights", ["1.0, 0.25", "ease_in", 4, 0, 9999, 1, 1, "shift batches"],
                        image=scene.both)  # fmt: skip
    again = graph.add("IPAdapterWeightsFromStrategy", weights_strategy=(weights, 5), image=scene.both)
    prompts = graph.add("IPAdapterPromptScheduleFromWeightsStrategy", ["a\nb"], weights_strategy=(again, 5))
    graph.add("PreviewAny", [], source=(prompts, 0))
    graph.add("PreviewImage", images=(again, 4))
    both = graph.add("IPAdapterCombineWeights", [0.0, 0.5], weights_1=(weights, 0)), 0
    node = scene.apply("IPAdapterBatch", {}, image=(weights, 3), weight=both)
    return scene.sampled(node)


def looked_at(kind: str, saved: Sequence[Any], **links: str) -> dict[str, Any]:
    """A node that makes a picture of a picture."""
    scene = Scene()
    made = scene.graph.add(kind, saved, **{name: getattr(scene, of) for name, of in links.items()})
    scene.graph.add("PreviewImage", images=(made, 0))
    return scene.graph.page()


def tiled(kind: str) -> dict[str, Any]:
    scene = Scene()
    node = scene.apply(kind, {"sharpening": 0.25})
    scene.graph.add("PreviewImage", images=(node, 1))
    scene.graph.add("MaskPreview", mask=(node, 2))
    return scene.sampled(node)


def faces(kind: str) -> dict[str, Any]:
    scene = Scene("SD15", "portrait_sd15.safetensors")
    found = scene.graph.add("IPAdapterInsightFaceLoader", ["CPU", "buffalo_l"]), 0
    node = scene.apply(kind, {"weight": 0.9}, insightface=found)
    scene.graph.add("PreviewImage", images=(node, 1))
    return scene.sampled(node)


def unified(loader: str, saved: Sequence[Any], kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A unified loader, and a node that takes what it gives. Several loaders hand on what they have."""
    scene = Scene()
    first = scene.graph.add(loader, saved, model=scene.model)
    second = scene.graph.add(loader, saved, model=(first, 0), ipadapter=(first, 1))
    scene.model, scene.adapter = (second, 0), (second, 1)
    sockets = {"model": scene.model, "ipadapter": scene.adapter, "image": scene.picture}
    return scene.sampled(scene.graph.add(kind, values(kind, **given), **sockets))


STANDARD, PORTRAIT = "STANDARD (medium strength)", "FACEID PORTRAIT (style transfer)"


def graphs() -> Iterator[tuple[str, dict[str, Any]]]:
    """All by name: every id, every weight type, and what was saved before an input was added."""
    sdxl = {"image_style": "picture", "image_composition": "other"}
    for kind in CONTRACT["IPAdapterAdvanced"]["inputs"]["weight_type"]["choices"]:
        given = {"weight": 0.8, "weight_type": kind, "end_at": 0.95, "embeds_scaling": "K+V"}
        yield f"IPAdapterAdvanced {kind}", applied("IPAdapterAdvanced", given=given, image="both", attn_mask="mask")
    for kind in CONTRACT["IPAdapter"]["inputs"]["weight_type"]["choices"]:
        given = {"weight": 0.7, "weight_type": kind}
        yield f"IPAdapter {kind}", unified("IPAdapterUnifiedLoader", [STANDARD], "IPAdapter", given)
    for kind in ("IPAdapterBatch", "IPAdapterPreciseStyleTransfer", "IPAdapterPreciseStyleTransferBatch",
                 "IPAdapterPreciseComposition", "IPAdapterPreciseCompositionBatch", "IPAdapterClipVisionEnhancer",
                 "IPAdapterClipVisionEnhancerBatch"):  # fmt: skip
        yield kind, applied(kind, given={"weight": 0.85}, image="both", image_negative="other")
    yield "IPAdapterMS", applied("IPAdapterMS", given={"layer_weights": "0:1, 5:0.5", "weight_faceidv2": 1.5})
    for kind in ("IPAdapterStyleComposition", "IPAdapterStyleCompositionBatch"):
        given = {"weight_style": 0.9, "weight_composition": 1.2, "expand_style": True}
        yield kind, applied(kind, "SDXL", "base_sdxl.safetensors", given=given, **sdxl)
    for kind in ("IPAdapterTiled", "IPAdapterTiledBatch"):
        yield kind, tiled(kind)
    for kind in ("IPAdapterFaceID", "IPAAdapterFaceIDBatch", "IPAdapterFaceIDKolors"):
        yield kind, faces(kind)
    for kind in ("IPAdapterEmbeds", "IPAdapterEmbedsBatch"):
        yield kind, embeds(kind)
    yield "IPAdapterLoadEmbeds", loaded_embeds()
    yield "IPAdapterFromParams", regions()
    yield "IPAdapterWeights", frames()
    yield "IPAdapterNoise", looked_at("IPAdapterNoise", ["shuffle", 0.5, 5], image_optional="picture")
    yield "PrepImageForClipVision", looked_at("PrepImageForClipVision", ["BICUBIC", "pad", 0.15], image="picture")
    yield (
        "IPAdapterUnifiedLoaderFaceID",
        unified("IPAdapterUnifiedLoaderFaceID", [PORTRAIT, 0.5, "CPU"], "IPAdapterFaceID", {"weight": 0.65}),
    )
    yield (
        "IPAdapterUnifiedLoaderCommunity",
        unified(
            "IPAdapterUnifiedLoaderCommunity", ["Composition"], "IPAdapterAdvanced", {"weight_type": "composition"}
        ),
    )
    # Before embeds_scaling, encode_batch_size, layer_weights or provider were there.
    yield "older IPAdapterAdvanced", applied("IPAdapterAdvanced", given=[0.9, "ease in", "average", 0.0, 0.9])
    yield "older IPAdapterBatch", applied("IPAdapterBatch", given=[0.9, "ease in", 0.0, 0.9, "K+V"], image="both")
    yield "oldest IPAdapterBatch", applied("IPAdapterBatch", given=[0.9, "ease in", 0.0, 0.9])
    yield "older IPAdapterTiled", applied("IPAdapterTiled", given=[0.9, "linear", "concat", 0.0, 1.0, 0.3])
    yield "older IPAdapterMS", applied("IPAdapterMS", given=[0.9, 1.5, "linear", "add", 0.0, 1.0, "K+V"])
    yield (
        "older unified FaceID",
        unified("IPAdapterUnifiedLoaderFaceID", [PORTRAIT, 0.5], "IPAdapterFaceID", {"weight": 0.65}),
    )
