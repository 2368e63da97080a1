"""What all nodes share: where they are found, their own sockets, and how a node says and shows something."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from comfy_api.latest import io, ui
from torch import Tensor

CATEGORY = "image prompt"
AdapterType = io.Custom("IMAGE_PROMPT_ADAPTER")
PromptType = io.Custom("IMAGE_PROMPT")
LayersType = io.Custom("IMAGE_PROMPT_LAYERS")
RegionType = io.Custom("IMAGE_PROMPT_REGION")
RecordType = io.Custom("IMAGE_PROMPT_RECORD")
MAX_SHOWN = 16  # pictures on a node: each becomes a file of the server


def say(node: type[io.ComfyNode], text: str) -> None:
    """Show a text on the node in the page; outside of a running server there is none."""
    if node.hidden is not None and node.hidden.unique_id is not None:
        say_on(node.hidden.unique_id, text)


def say_on(unique_id: str | None, text: str) -> None:
    """Show a text on the node of this id in the page; outside of a running server, or without an id, there is none."""
    server = sys.modules.get("server")  # ComfyUI's own, never imported for this
    if server is not None and unique_id is not None:
        server.PromptServer.instance.send_progress_text(text, unique_id)


def shown(pictures: Sequence[Tensor] | Tensor) -> ui.PreviewImage | None:
    """The first pictures, each [H, W, 3] of 0..1, to show on a node; outside of a running server there is none."""
    server = sys.modules.get("server")
    if server is None or getattr(getattr(server, "PromptServer", None), "instance", None) is None:
        return None
    return ui.PreviewImage(pictures[:MAX_SHOWN])
