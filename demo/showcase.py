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

from demo.choice import all_right, clean_ends, different, first, halves_right, partner
from pocket.training.data import references
from pocket.training.judge import Judge
from pocket.world.drawing import silhouettes
from pocket.world.scenes import SHAPE, SHAPES, SIZE
from tools import api_graphs as prompts
from tools.graphs.pocket import SWEEP
from tools.server import Server

SEED = 51  # of the references; no training and no measurement uses it
COUNT, SHOWN = 32, 6  # references that are judged, and those that are shown in a row
LARGE = 3  # references that are shown at double size
TEXT, SWEEP_TEXT = "a heart", "a ring"
WEIGHTS = (0.0, 0.3, 1.0, 2.0)  # as many as the graph has
CANDIDATES, STRIPS = 16, 3  # references that all weights are tried on, and those that are shown


@dataclass(frozen=True)
class Row:
    """Pictures side by side, [N, 3, 64, 64] of 0..1, with a label for all and, if there are any, one for each.

    given: how many of the first are what the model is given, not what it made.
    """

    label: str
    pictures: Tensor
    captions: Sequence[str] = ()
    given: int = 0


@dataclass(frozen=True)
class Section:
    """What one claim looks like, and the graph that shows it. judged: of rows whose agreement is told, all pictures
    [N, ...] and the scenes [N, 5] that they should show, by label. is_large: at double size."""

    title: str
    text: str
    graph: str
    rows: list[Row]
    judged: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    is_large: bool = False


class Showcase:
    """Runs graphs on the same references; a batch gives each latent its own."""

    def __init__(self, server: Server, judge: Judge) -> None:
        self.server, self.judge = server, judge
        self.references = references(COUNT, SEED)
        others = references(COUNT, SEED + 1)
        self.others = others.scenes
        self.given = Row("reference", self.references.of(torch.arange(COUNT)), given=COUNT)
        self.files = self._write("reference", self.given.pictures)
        shapes = silhouettes(others.scenes, others.given)
        self.silhouettes = Row("silhouette", shapes, given=COUNT)
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
        prompted = self.image_prompt()
        yield self.lead(prompted)
        yield self.weights()
        yield prompted
        yield self.image_and_text()
        yield self.two_references()
        yield self.controlnet()
        yield self.other_look()

    def lead(self, prompted: Section) -> Section:
        """A few of the pictures of another section, large."""
        scenes = self.references.scenes
        right = all_right(self.judge, *prompted.judged["adapter"])
        shown = different(first(right, COUNT), scenes, LARGE)
        return Section(
            "A picture is the prompt",
            "No words at all. Above what the model is given, below what it draws from it, and in between what the same "
            f"noise becomes without the adapter. Shown are the first of {COUNT} references whose picture is right in "
            "shape, colour, background, pattern and size, each of another shape and colour than those before it; "
            f"{int(right.sum())} of {COUNT} are right.",
            prompted.graph,
            [Row(row.label, row.pictures[shown], given=row.given) for row in prompted.rows[:LARGE]],
            is_large=True,
        )

    def image_prompt(self) -> Section:
        graph, given = "pocket_image_prompt", {"Reference": self.files}
        made = {
            "no adapter": self.run(graph, given, weight=0.0),
            "adapter": self.run(graph, given),
            "fine-grained adapter": self.run("pocket_fine_grained", given, "pocket_fine_grained"),
        }
        labels = {"no adapter": "no adapter (weight 0), the same noise"}
        return Section(
            "The first six, as they come",
            "Without the adapter the model draws anything. With it, each picture follows the reference above: shape, "
            "colours, pattern and size. The fine-grained adapter also looks at parts of the picture.",
            graph,
            [self.given, *(Row(labels.get(label, label), pictures) for label, pictures in made.items())],
            {label: (pictures, self.references.scenes) for label, pictures in made.items()},
        )

    def image_and_text(self) -> Section:
        graph = "pocket_image_and_text"
        made = self.run(graph, {"Reference": self.files}, text=TEXT)
        scenes = self.references.scenes.clone()
        scenes[:, SHAPE] = SHAPES.index(TEXT.split()[-1])
        return Section(
            "Picture and words together",
            f"The words say “{TEXT}”, the picture gives the rest.",
            graph,
            [self.given, Row(f"+ “{TEXT}”", made)],
            {f"+ “{TEXT}”": (made, scenes)},
        )

    def weights(self) -> Section:
        made = self._weighted(self.files[:CANDIDATES])
        scenes = self.references.scenes[:CANDIDATES]
        clean = clean_ends(self.judge, made, scenes, SHAPES.index(SWEEP_TEXT.split()[-1]))
        captions = ["reference", *(f"weight {weight:g}" for weight in WEIGHTS)]
        given = self.given.pictures
        return Section(
            "How strongly the picture counts",
            f"The words “{SWEEP_TEXT}”, a picture, and a weight between them; a row has the same noise. Shown are the "
            f"first of {CANDIDATES} references whose ends are clean: at {WEIGHTS[0]:g} the words' shape and none of "
            f"the picture's colours, at {WEIGHTS[-1]:g} all of the picture; {int(clean.sum())} of {CANDIDATES} are.",
            "pocket_weights",
            [
                Row(f"words “{SWEEP_TEXT}”", torch.cat([given[number, None], made[:, number]]), captions, given=1)
                for number in first(clean, STRIPS)
            ],
        )

    def _weighted(self, files: list[str]) -> Tensor:
        """Pictures of each weight and reference, [W, N, 3, 64, 64]."""
        content = prompts.prompt("pocket_weights")
        prompts.save_as_made(content, "")
        prompts.give_files(content, "Reference", files)
        for place, (own, weight) in enumerate(zip(SWEEP, WEIGHTS, strict=True)):
            apply = content[prompts.node_of(content, f"Apply, weight {own:g}")]["inputs"]
            apply |= {"weight": weight, "combine": "one for each latent"}
            content[prompts.node_of(content, f"Weight {own:g}")]["inputs"]["filename_prefix"] = f"weights/{place}"
        prompts.inputs_of(content, "EmptyLatentImage")["batch_size"] = len(files)
        content[prompts.node_of(content, "Text")]["inputs"]["text"] = SWEEP_TEXT
        return self._pictures("pocket_weights", content).unflatten(0, (len(WEIGHTS), len(files)))

    def two_references(self) -> Section:
        scenes, pictures = self.references.scenes, self.given.pictures
        numbers = {"Upper": list(range(COUNT)), "Lower": [partner(scenes, number) for number in range(COUNT)]}
        files = {f"{side} reference": [self.files[number] for number in found] for side, found in numbers.items()}
        made = self.run("pocket_two_references", files)
        upper, lower = (pictures[found] for found in numbers.values())
        right = halves_right(self.judge, made, *(scenes[found] for found in numbers.values()))
        shown = first(right, SHOWN)
        return Section(
            "Two references, each in its half",
            "A mask says where each picture counts: one in the upper half, another one in the lower. Shown are the "
            f"first of {COUNT} pairs of one big shape whose result keeps it, and has in each half the colour, "
            f"background and pattern of its own picture; {int(right.sum())} of {COUNT} are. A small shape is too few "
            "of this model's places to be halved.",
            "pocket_two_references",
            [
                Row("upper", upper[shown], given=SHOWN),
                Row("lower", lower[shown], given=SHOWN),
                Row("both", made[shown]),
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
            "pocket_controlnet",
            [self.given, self.silhouettes, Row(label, made)],
            {label: (made, scenes)},
        )

    def other_look(self) -> Section:
        made = self.run("pocket_other_look", {"Reference": self.files})
        return Section(
            "Another look, the same adapter",
            "A LoRA turns the model's drawings into stickers. The adapter was never trained on it, and still works.",
            "pocket_other_look",
            [self.given, Row("sticker look", made)],
            {"sticker look": (made, self.references.scenes)},
        )


def read(paths: Iterable[Path]) -> Tensor:
    """Saved pictures as [N, 3, 64, 64] of 0..1."""
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(pixels).movedim(-1, 1).float() / 255
