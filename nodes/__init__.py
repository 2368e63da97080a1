"""The ComfyUI nodes."""

from comfy_api.latest import ComfyExtension, io

from . import folders
from .forms import pocket
from .forms.apply import ApplyAdapter
from .forms.apply_in_masks import ApplyInMasks
from .forms.combine import CombineImagePrompts
from .forms.encode import EncodeImagePrompt
from .forms.encode_faces import EncodeFaces
from .forms.encode_tiles import EncodeImageTiles
from .forms.example import ExamplePicture
from .forms.frames import FrameWeights
from .forms.image_prompt import ImagePromptNode
from .forms.layers import LayerWeightsNode
from .forms.load_adapter import LoadAdapter
from .forms.load_encoder import LoadEncoder
from .forms.noise import ReferenceNoise
from .forms.pocket import DrawPocketPicture, LoadPocket
from .forms.record import ImageAttentionMap, RecordAttention
from .forms.regions import RegionalPrompts, RegionNode
from .forms.saved import LoadImagePrompt, SaveImagePrompt
from .older import register as older

NODES: list[type[io.ComfyNode]] = [LoadAdapter, LoadEncoder, EncodeImagePrompt, ApplyAdapter, ImagePromptNode]
NODES += [EncodeFaces, CombineImagePrompts, SaveImagePrompt, LoadImagePrompt, LoadPocket, DrawPocketPicture]
NODES += [LayerWeightsNode, RegionNode, RegionalPrompts, FrameWeights]
NODES += [EncodeImageTiles, ApplyInMasks, ReferenceNoise]
NODES += [RecordAttention, ImageAttentionMap]
NODES += [ExamplePicture]


class ImagePromptExtension(ComfyExtension):
    async def on_load(self) -> None:
        folders.register()
        pocket.register()
        older.register_in_comfyui()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
