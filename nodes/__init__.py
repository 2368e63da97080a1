"""The ComfyUI nodes."""

from comfy_api.latest import ComfyExtension, io

from . import folders, pocket
from .adapters import LoadAdapter
from .apply import ApplyAdapter, ImagePromptNode
from .combine import CombineImagePrompts
from .encode_faces import EncodeFaces
from .encoders import LoadEncoder
from .image_prompt import EncodeImagePrompt
from .pocket import DrawPocketPicture, LoadPocket
from .saved_prompt import LoadImagePrompt, SaveImagePrompt

NODES: list[type[io.ComfyNode]] = [LoadAdapter, LoadEncoder, EncodeImagePrompt, ApplyAdapter, ImagePromptNode]
NODES += [EncodeFaces, CombineImagePrompts, SaveImagePrompt, LoadImagePrompt, LoadPocket, DrawPocketPicture]


class ImagePromptExtension(ComfyExtension):
    async def on_load(self) -> None:
        folders.register()
        pocket.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
