"""Nodes that encode show what the encoder sees, in a running server: on the node, cached, and nowhere run for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tools.server import Result, Server

pytestmark = pytest.mark.comfy

RED = (255, 0, 0)


@pytest.fixture
def prompt() -> dict[str, Any]:
    """Encoded and shown by an output node, a tiled picture that nothing needs beside it."""
    tiles = {"rows": 0, "columns": 0, "overlap": 0.0, "mix": 0.5, "soft": True, "crop": "centre"}
    nodes = {
        "models": ("TestSmallModels", {}),
        "picture": ("EmptyImage", {"width": 64, "height": 96, "batch_size": 18, "color": 0xFF0000}),
        "encode": ("ImagePromptEncode", {"encoder": ["models", 1], "image": ["picture", 0], "crop": "centre"}),
        "tiles": ("ImagePromptTiles", {"encoder": ["models", 1], "image": ["picture", 0]} | tiles),
        "save": ("SaveImage", {"images": ["encode", 1], "filename_prefix": "seen"}),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def shown(server: Server, result: Result, node: str) -> list[np.ndarray]:
    """The pictures on a node, from the files that the page loads."""
    files = result.history["outputs"].get(node, {}).get("images", [])
    assert {file["type"] for file in files} <= {"temp"}
    return [np.asarray(Image.open(server.folder / "temp" / file["subfolder"] / file["filename"])) for file in files]


def test_what_the_encoder_sees_is_on_the_node(server: Server, prompt: dict[str, Any]) -> None:
    first = server.run(prompt)
    pictures = shown(server, first, "encode")
    side = pictures[0].shape[0]
    print(f"\n{len(pictures)} of 18 pictures on the node, {side} px")
    assert len(pictures) == 16 and all(picture.shape == (side, side, 3) for picture in pictures)
    assert (pictures[0] == RED).all()
    assert len(first.pictures) == 18  # what was saved is apart
    assert "tiles" not in first.history["outputs"]  # no output node needs it, so it does not run
    prompt["save"]["inputs"]["filename_prefix"] = "again"
    again = server.run(prompt)  # the encoder node is answered from the cache, and shows the same files
    assert again.history["outputs"]["encode"] == first.history["outputs"]["encode"]


def test_tiles_are_on_the_node(server: Server, prompt: dict[str, Any]) -> None:
    prompt["save"]["inputs"]["images"] = ["tiles", 3]
    prompt["picture"]["inputs"]["batch_size"] = 1
    result = server.run(prompt)
    assert len(shown(server, result, "tiles")) == len(result.pictures) == 2
