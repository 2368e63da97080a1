"""What all nodes share: where they are found, their own sockets, and how a node says and shows something."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.utils import get_executing_context
from torch import Tensor

CATEGORY = "IP-Adapter"
FACES = f"{CATEGORY}/faces"
POCKET = f"{CATEGORY}/pocket"
OLDER = f"{CATEGORY}/older graphs"
# Words that people search for a node of this kind by. The page finds a node by them, after those that have the words in
# their names: so each is a word or two by itself, not a sentence.
SEARCHED = [
    "ipadapter", "ip-adapter", "ip adapter", "IPAdapter Advanced", "image prompt", "reference", "style",
    "style transfer", "composition", "character", "face", "variation",
]  # fmt: skip
AdapterType = io.Custom("IMAGE_PROMPT_ADAPTER")
PromptType = io.Custom("IMAGE_PROMPT")
LayersType = io.Custom("IMAGE_PROMPT_LAYERS")
RegionType = io.Custom("IMAGE_PROMPT_REGION")
RecordType = io.Custom("IMAGE_PROMPT_RECORD")
REFUSED, DONE = "\N{WARNING SIGN}", "\N{CHECK MARK}"  # before a refusal on a node, and after it a good run
MAX_SHOWN = 16  # pictures on a node: each becomes a file of the server

_refusals: set[str] = set()  # ids of nodes that show a refusal: the page itself never takes a text away


def say(*lines: str) -> None:
    """Show lines on the node that runs now, in the page; outside of a running server there is none."""
    running = get_executing_context()
    say_on(None if running is None else running.node_id, "\n".join(line for line in lines if line))


@contextmanager
def refusals_said() -> Iterator[None]:
    """Show the sentence of a ValueError on the node that runs now: the page itself hides it behind a click."""
    running = get_executing_context()
    try:
        yield
    except ValueError as error:
        say(f"{REFUSED} {error}")
        if running is not None:
            _refusals.add(running.node_id)
        raise
    if running is not None and running.node_id in _refusals:  # it runs now, and said nothing itself
        say(DONE)


def verdict(check: Callable[[], object]) -> bool | str:
    """What `validate_inputs` answers: True, or the sentence of the ValueError that a check raises."""
    try:
        check()
    except ValueError as error:
        return str(error)
    return True


class Form(io.ComfyNode):
    """A node of ours: what it refuses is shown on it."""

    FUNCTION = "run"  # what ComfyUI calls

    @classmethod
    def run(cls, *args: Any, **inputs: Any) -> io.NodeOutput:
        with refusals_said():
            return cls.EXECUTE_NORMALIZED(*args, **inputs)


def say_on(unique_id: str | None, text: str) -> None:
    """Show a text on the node of this id in the page; outside of a running server, or without an id, there is none."""
    server = sys.modules.get("server")  # ComfyUI's own, never imported for this
    if server is not None and unique_id is not None and text:
        _refusals.discard(unique_id)
        server.PromptServer.instance.send_progress_text(text, unique_id)


def shown(pictures: Sequence[Tensor] | Tensor) -> ui.PreviewImage | None:
    """The first pictures, each [H, W, 3] of 0..1, to show on a node; outside of a running server there is none."""
    server = sys.modules.get("server")
    if server is None or getattr(getattr(server, "PromptServer", None), "instance", None) is None:
        return None
    return ui.PreviewImage(pictures[:MAX_SHOWN])
