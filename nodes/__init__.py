"""The ComfyUI nodes."""

from comfy_api.latest import ComfyExtension, io

from . import folders
from .encoders import LoadEncoder
from .forms import pocket
from .forms.apply import ApplyAdapter
from .forms.encode_faces import EncodeFaces
from .forms.image_prompt import ImagePromptNode
from .forms.pocket import DrawPocketPicture, LoadPocket
from .models import LoadAdapter
from .prompts.combined import CombineImagePrompts
from .prompts.pictures import EncodeImagePrompt
from .prompts.saved import LoadImagePrompt, SaveImagePrompt

NODES: list[type[io.ComfyNode]] = [LoadAdapter, LoadEncoder, EncodeImagePrompt, ApplyAdapter, ImagePromptNode]
NODES += [EncodeFaces, CombineImagePrompts, SaveImagePrompt, LoadImagePrompt, LoadPocket, DrawPocketPicture]


class ImagePromptExtension(ComfyExtension):
    async def on_load(self) -> None:
        folders.register()
        pocket.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
