"""The pocket graphs of workflows/ in a real server, on references that the model has never seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pocket.training.data import references
from pocket.world.drawing import silhouettes
from pocket.world.scenes import COLOUR, SHAPE, SHAPES, SIZE
from tools import api_graphs as prompts
from tools.graphs.pocket import SWEEP
from tools.server import Server

SEED = 51  # of the references; no training and no measurement uses it
COUNT, SHOWN = 32, 8  # references that are judged, and those that are shown
TEXT = "a heart"
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4)


@dataclass(frozen=True)
class Row:
    """Pictures side by side, [N, 3, 64, 64] of 0..1, with a label for all and, if there are any, one for each.

    is_given: what the model is given, not what it made.
    """

    label: str
    pictures: Tensor
    captions: Sequence[str] = ()
    is_given: bool = False


@dataclass(frozen=True)
class Section:
    """What one claim looks like. judged: of rows whose agreement is told, all pictures [N, ...] and the scenes [N, 5]
    that they should show, by label."""

    title: str
    text: str
    rows: list[Row]
    judged: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Showcase:
    """Runs graphs on the same references; a batch gives each latent its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.references = references(COUNT, SEED)
        others = references(COUNT, SEED + 1)
        self.others = others.scenes
        self.given = Row("reference", self.references.of(torch.arange(COUNT)), is_given=True)
        self.files = self._write("reference", self.given.pictures)
        shapes = silhouettes(others.scenes, others.given)
        self.silhouettes = Row("silhouette", shapes, is_given=True)
        self.silhouette_files = self._write("silhouette", shapes)

    def _write(self, name: str, pictures: Tensor) -> list[str]:
        """Into the server's input folder, as a user's own pictures."""
        names = [f"{name}_{number:02d}.png" for number in range(len(pictures))]
        for file, picture in zip(names, pictures):
            pixels = (picture * 255).round().byte().movedim(0, -1).numpy()
            Image.fromarray(pixels).save(self.server.folder / "input" / file)
        return names

    def run(self, name: str, files: dict[str, list[str]], prefix: str = "", text: str = "", **settings: Any) -> Tensor:
        """One graph with pictures for its nodes by their titles; settings change every input of that name."""
        content = prompts.prompt(name)
        prompts.save_as_made(content, prefix or name)
        count = max(map(len, files.values()))
        for title, given in files.items():
            prompts.give_files(content, title, given)
        changes = {"batch_size": count, "combine": "one for each latent"} | settings
        for node in content.values():
            for key in node["inputs"].keys() & changes.keys():
                node["inputs"][key] = changes[key]
        content[prompts.node_of(content, "Text")]["inputs"]["text"] = text
        return self._pictures(name, content)

    def _pictures(self, name: str, content: prompts.Prompt) -> Tensor:
        """In the order of their files' names: a batch is numbered."""
        result = self.server.run(content)
        print(f"{name}: {len(result.pictures)} pictures in {result.seconds:.1f} s", flush=True)
        return read(sorted(result.pictures))

    def sections(self) -> Iterable[Section]:
        yield self.image_prompt()
        yield self.image_and_text()
        yield self.weights()
        yield self.two_references()
        yield self.controlnet()
        yield self.other_look()

    def image_prompt(self) -> Section:
        given = {"Reference": self.files}
        made = {
            "no adapter": self.run("pocket_image_prompt", given, weight=0.0),
            "adapter": self.run("pocket_image_prompt", given),
            "fine-grained adapter": self.run("pocket_fine_grained", given, "pocket_fine_grained"),
        }
        return Section(
            "The picture is the prompt",
            "The model gets no words at all. Without the adapter it draws anything. With it, each picture follows the "
            "reference above: shape, colours, pattern and size. The model never saw these combinations in training.",
            [self.given, *(Row(label, value) for label, value in made.items())],
            {label: (pictures, self.references.scenes) for label, pictures in made.items()},
        )

    def image_and_text(self) -> Section:
        made = self.run("pocket_image_and_text", {"Reference": self.files}, text=TEXT)
        scenes = self.references.scenes.clone()
        scenes[:, SHAPE] = SHAPES.index(TEXT.split()[-1])
        return Section(
            "Picture and words together",
            f"The words say “{TEXT}”, the picture gives the rest.",
            [self.given, Row(f"+ “{TEXT}”", made)],
            {f"+ “{TEXT}”": (made, scenes)},
        )

    def weights(self) -> Section:
        """As many weights in a run as the graph has."""
        parts = [WEIGHTS[start : start + len(SWEEP)] for start in range(0, len(WEIGHTS), len(SWEEP))]
        made = [self._weighted(part) for part in parts]
        captions = [f"{weight:g}" for weight in WEIGHTS]
        return Section(
            "How strongly the picture counts",
            "One reference, the words “a ring”, the same noise. At weight 0 only the words count.",
            [
                Row("reference", self.given.pictures[:1], is_given=True),
                Row("weight", torch.cat(made), captions),
            ],
        )

    def _weighted(self, weights: Sequence[float]) -> Tensor:
        content = prompts.prompt("pocket_weights")
        prompts.save_as_made(content, "")
        prompts.give_files(content, "Reference", self.files[:1])
        for place, (own, weight) in enumerate(zip(SWEEP, weights, strict=True)):
            content[prompts.node_of(content, f"Apply, weight {own:g}")]["inputs"]["weight"] = weight
            content[prompts.node_of(content, f"Weight {own:g}")]["inputs"]["filename_prefix"] = f"weights/{place}"
        return self._pictures("pocket_weights", content)

    def two_references(self) -> Section:
        upper, lower = list(range(SHOWN)), [alike(self.references.scenes, number) for number in range(SHOWN)]
        files = {
            f"{side} reference": [self.files[number] for number in numbers]
            for side, numbers in (("Upper", upper), ("Lower", lower))
        }
        made = self.run("pocket_two_references", files)
        pictures = self.given.pictures
        return Section(
            "Two references, each in its half",
            "A mask says where each picture counts: one in the upper half, another one of the same shape in the lower.",
            [
                Row("upper", pictures[upper], is_given=True),
                Row("lower", pictures[lower], is_given=True),
                Row("both", made),
            ],
        )

    def controlnet(self) -> Section:
        given = {"Reference": self.files, "Structure": self.silhouette_files}
        made = self.run("pocket_controlnet", given)
        label, scenes = "reference + silhouette", self.references.scenes.clone()
        scenes[:, [SHAPE, SIZE]] = self.others[:, [SHAPE, SIZE]]
        return Section(
            "Structure from a ControlNet",
            "A silhouette says which shape, where and how large, the reference gives colours and pattern. Neither was "
            "trained with the other.",
            [self.given, self.silhouettes, Row(label, made)],
            {label: (made, scenes)},
        )

    def other_look(self) -> Section:
        made = self.run("pocket_other_look", {"Reference": self.files})
        return Section(
            "Another look, the same adapter",
            "A LoRA turns the model's drawings into stickers. The adapter was never trained on it, and still works.",
            [self.given, Row("sticker look", made)],
            {"sticker look": (made, self.references.scenes)},
        )


def alike(scenes: Tensor, number: int) -> int:
    """The first of these scenes [N, 5] that has the shape of one of them in another colour; if none has, the next."""
    same, others = scenes[:, SHAPE] == scenes[number, SHAPE], scenes[:, COLOUR] != scenes[number, COLOUR]
    found = (same & others).nonzero()
    return int(found[0]) if len(found) else (number + 1) % len(scenes)


def read(paths: Iterable[Path]) -> Tensor:
    """Saved pictures as [N, 3, 64, 64] of 0..1."""
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(pixels).movedim(-1, 1).float() / 255
