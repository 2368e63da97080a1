"""IP-Adapter for ComfyUI. The imports are inside, because pytest imports this file too, outside of a package."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"
OLDEST_COMFYUI = (0, 30, 0)


async def comfy_entrypoint() -> Any:
    """What ComfyUI calls: the pack's nodes."""
    from comfyui_version import __version__

    if tuple(int(part) for part in __version__.split(".")[:3]) < OLDEST_COMFYUI:
        oldest = ".".join(map(str, OLDEST_COMFYUI))
        raise RuntimeError(f"IP-Adapter needs ComfyUI {oldest} or newer, this is {__version__}: update ComfyUI")
    from .nodes import ImagePromptExtension

    return ImagePromptExtension()
