"""The ComfyUI nodes."""

from comfy_api.latest import ComfyExtension, io

from . import folders
from .adapters import LoadAdapter
from .apply import ApplyAdapter, ImagePromptNode
from .combine import CombineImagePrompts
from .encode_faces import EncodeFaces
from .encoders import LoadEncoder
from .image_prompt import EncodeImagePrompt
from .saved_prompt import LoadImagePrompt, SaveImagePrompt

NODES: list[type[io.ComfyNode]] = [LoadAdapter, LoadEncoder, EncodeImagePrompt, ApplyAdapter, ImagePromptNode]
NODES += [EncodeFaces, CombineImagePrompts, SaveImagePrompt, LoadImagePrompt]


class ImagePromptExtension(ComfyExtension):
    async def on_load(self) -> None:
        folders.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
