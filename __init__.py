"""IP-Adapter for ComfyUI. The imports are inside, because pytest imports this file too, outside of a package."""

from __future__ import annotations

import importlib.util
from typing import Any

WEB_DIRECTORY = "./web"
OLDEST_COMFYUI = (0, 30, 0)


def _check_comfyui() -> None:
    """Refuse a ComfyUI that lacks what the nodes call, in one sentence instead of an error from inside of it."""
    if importlib.util.find_spec("comfyui_version") is None:
        return  # not loaded by ComfyUI
    from comfyui_version import __version__

    if tuple(int(part) for part in __version__.split(".")[:3]) < OLDEST_COMFYUI:
        oldest = ".".join(map(str, OLDEST_COMFYUI))
        raise RuntimeError(f"IP-Adapter needs ComfyUI {oldest} or newer, this is {__version__}: update ComfyUI")


_check_comfyui()


async def comfy_entrypoint() -> Any:
    """What ComfyUI calls: the pack's nodes."""
    from .nodes import ImagePromptExtension

    return ImagePromptExtension()
