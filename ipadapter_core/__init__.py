"""IP-Adapter (arXiv 2308.06721): the method, in plain torch. Shared by the ComfyUI nodes and the trainer."""

from .facts.families import detect
from .facts.lora import MATRICES, Lora, lora_of
from .facts.presets import LAYER_WEIGHTS, layer_weights
from .facts.unet import attention_names, comfyui_block, unet_sites
from .facts.variants import CHOICES as VARIANTS
from .facts.variants import told
from .files.describe import describe, licence, needs
from .files.read import WeightsFile, read_adapter, read_weights, write_adapter, write_pickle
from .method.adapter import IPAdapter, build_adapter, extra_keys, layer_widths
from .method.attention import (
    ImageKV,
    ImageKVLayer,
    add_image_attention,
    attention,
    decoupled_attention,
    joint_attention,
)
from .method.influence import Curve, Influence
from .method.site import Site
from .method.spec import (
    AdapterSpec,
    FaceCrop,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    ResamplerProjection,
    encoder_of_width,
)

__all__ = [
    "LAYER_WEIGHTS",
    "MATRICES",
    "VARIANTS",
    "AdapterSpec",
    "Curve",
    "FaceCrop",
    "IPAdapter",
    "IdentityProjection",
    "IdentityResamplerProjection",
    "ImageKV",
    "ImageKVLayer",
    "Influence",
    "LinearProjection",
    "Lora",
    "MLPProjection",
    "ResamplerProjection",
    "Site",
    "WeightsFile",
    "add_image_attention",
    "attention",
    "attention_names",
    "build_adapter",
    "comfyui_block",
    "decoupled_attention",
    "describe",
    "detect",
    "encoder_of_width",
    "extra_keys",
    "joint_attention",
    "layer_weights",
    "layer_widths",
    "licence",
    "lora_of",
    "needs",
    "read_adapter",
    "read_weights",
    "told",
    "unet_sites",
    "write_adapter",
    "write_pickle",
]
