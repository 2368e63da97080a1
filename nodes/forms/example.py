"""Example Picture: the pictures that come with this pack, so that a graph has a fitting reference from the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from ..sockets import CATEGORY, Form, shown

FOLDER = Path(__file__).parents[2] / "web" / "pictures"  # in web/, so that the help panel shows them too
PICTURES = ("painting", "cat", "coffee", "rocket", "astronaut", "commodore")


class ExamplePicture(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptExamplePicture",
            display_name="Example Picture",
            category=CATEGORY,
            description="A picture that comes with this pack, to try a graph with; for your own, take Load Image.",
            search_aliases=["ipadapter", "reference", "sample", "test image", "portrait", "face"],
            inputs=[
                io.Combo.Input(
                    "picture", options=list(PICTURES),
                    tooltip="painting is for a style; cat, coffee and rocket for content and edges; astronaut and "
                    "commodore are portraits, for faces.",
                ),
            ],
            outputs=[io.Image.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        with Image.open(FOLDER / f"{picture}.webp") as file:
            pixels = torch.from_numpy(np.asarray(file.convert("RGB"), np.float32) / 255)[None]
        return io.NodeOutput(pixels, ui=shown(pixels))
