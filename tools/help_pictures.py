"""Pictures of the help panels that only the nodes themselves make, in a real ComfyUI: `python -m tools.help_pictures`.

Those of the controls are `python -m pocket.evidence pictures`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ipadapter_core.facts.presets import MIDDLE_OFF
from pocket.evidence.controls.pictures import LEFT, QUALITY
from pocket.evidence.sheet import Row, draw_sheet
from pocket.world.scenes import ATTRIBUTES, BACKGROUNDS, COLOURS, PATTERNS, SHAPES
from pocket.world.settings import GUIDANCE, TEXT_WEIGHT
from tools.comfyui import ROOT, find_or_fetch
from tools.server import Server

FOLDER = ROOT / "web" / "docs" / "pictures"
SHOWN = 4  # pictures in a row
# References and the shapes that texts beside them name.
SCENES = {
    "a star": ("heart", "blue", "pink", "dots", "small"),
    "a heart": ("circle", "red", "mint", "stripes", "big"),
    "a moon": ("cross", "black", "sky", "plain", "big"),
    "a cross": ("star", "purple", "white", "checks", "big"),
}
NOISES = (("fade", 0.5), ("fade", 1.0), ("dissolve", 0.5), ("gaussian", 0.5), ("shuffle", 1.0))
Nodes = dict[str, tuple[str, dict[str, Any]]]


def drawn(*attributes: str, seed: int = 0) -> tuple[str, dict[str, Any]]:
    return "ImagePromptPocketPicture", dict(zip(ATTRIBUTES, attributes, strict=True), seed=seed)


def made(server: Server, nodes: Nodes, saved: dict[str, list[Any]]) -> dict[str, Tensor]:
    """Pictures [3, H, W] of 0..1 by name, of outputs of nodes."""
    saves: Nodes = {
        f"save {name}": ("SaveImage", {"images": link, "filename_prefix": name}) for name, link in saved.items()
    }
    content = {
        name: {"class_type": kind, "inputs": inputs, "_meta": {"title": name}}
        for name, (kind, inputs) in (nodes | saves).items()
    }
    result = server.run(content)
    found = {path.name.rsplit("_", 2)[0]: path for path in result.pictures}
    return {name: read(found[name]) for name in saved}


def read(path: Path) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).movedim(-1, 0).float() / 255


def attention_map(server: Server) -> Image.Image:
    """References, what becomes of them beside a text, and where each acted."""
    columns = [mapped(server, text, scene) for text, scene in SCENES.items()]
    rows = [Row(name, torch.stack([column[name] for column in columns])) for name in columns[0]]
    return draw_sheet(rows, [f'"{text}"' for text in SCENES], LEFT)


def mapped(server: Server, text: str, scene: tuple[str, ...]) -> dict[str, Tensor]:
    applied = {
        "model": ["pocket", 0], "image": ["reference", 0], "adapter": "pocket_plus.safetensors", "encoder": "pocket/",
        "crop": "centre", "weight": TEXT_WEIGHT, "layers": MIDDLE_OFF, "start_percent": 0.0, "end_percent": 1.0,
        "combine": "concatenate",
    }  # fmt: skip
    sampling = {
        "model": ["record", 0], "positive": ["text", 0], "negative": ["nothing", 0], "latent_image": ["latent", 0],
        "seed": 42, "steps": 20, "cfg": GUIDANCE, "sampler_name": "ddim", "scheduler": "ddim_uniform", "denoise": 1.0,
    }  # fmt: skip
    shown = {"reference": 0, "layers": "", "start_percent": 0.0, "end_percent": 1.0, "normalise": True}
    nodes: Nodes = {
        "pocket": ("ImagePromptLoadPocket", {}),
        "reference": drawn(*scene),
        "applied": ("ImagePrompt", applied),
        "record": ("ImagePromptRecord", {"model": ["applied", 0]}),
        "text": ("CLIPTextEncode", {"text": text, "clip": ["pocket", 1]}),
        "nothing": ("CLIPTextEncode", {"text": "", "clip": ["pocket", 1]}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sampled": ("KSampler", sampling),
        "decoded": ("VAEDecode", {"samples": ["sampled", 0], "vae": ["pocket", 2]}),
        "map": ("ImagePromptAttentionMap", {"record": ["record", 1], "latent": ["sampled", 0]} | shown),
    }
    return made(server, nodes, {"reference": ["reference", 0], "result": ["decoded", 0], "heat map": ["map", 0]})


def noise(server: Server) -> Image.Image:
    """Two references and their noise, by kind and strength; noise makes large files."""
    columns = []
    for scene in list(SCENES.values())[:2]:
        nodes: Nodes = {"drawn": drawn(*scene)}
        for kind, strength in NOISES:
            given = {"image": ["drawn", 0], "kind": kind, "strength": strength, "blur": 0.0, "seed": 0}
            nodes[f"{kind} {strength:g}"] = ("ImagePromptNoise", given)
        saved = {"image": ["drawn", 0]} | {name: [name, 0] for name in nodes if name != "drawn"}
        columns.append(made(server, nodes, saved))
    return draw_sheet([Row(name, torch.stack([one[name] for one in columns])) for name in columns[0]], left=LEFT)


def world(server: Server) -> Image.Image:
    """The eight shapes in some of their colours, each with its silhouette."""
    kinds = zip(SHAPES, *map(itertools.cycle, (COLOURS, BACKGROUNDS, PATTERNS, ("big", "small"))))
    nodes: Nodes = {scene[0]: drawn(*scene) for scene in kinds}
    saved = {f"{name}-{output}": [name, output] for name in nodes for output in (0, 1)}
    found = made(server, nodes, saved)
    rows = []
    for names in (SHAPES[:SHOWN], SHAPES[SHOWN:]):
        for output, label in enumerate(("picture", "silhouette")):
            rows.append(Row(label, torch.stack([found[f"{name}-{output}"] for name in names])))
    return draw_sheet(rows, left=LEFT)


def main() -> None:
    folder = ROOT / "out" / "help_pictures"
    (folder / "models").mkdir(parents=True, exist_ok=True)  # empty: pocket comes with the pack
    with Server(find_or_fetch(), folder, folder / "models") as server:
        for make in (attention_map, noise, world):
            make(server).save(FOLDER / f"{make.__name__}.webp", quality=QUALITY, method=6)
            print(FOLDER / f"{make.__name__}.webp")


if __name__ == "__main__":
    main()
