"""IP-Adapter (arXiv 2308.06721): the method, in plain torch. Shared by the ComfyUI nodes and the trainer."""

from .facts.families import detect
from .facts.lora import Lora, lora_of
from .facts.presets import LAYER_WEIGHTS, layer_weights
from .facts.unet import Layer, attention_names, layer_table
from .facts.variants import CHOICES as VARIANTS
from .facts.variants import told
from .files.describe import describe, licence, needs
from .files.read import WeightsFile, read_adapter, read_weights, write_adapter, write_pickle
from .method.adapter import IPAdapter, build_adapter, extra_keys, layer_widths
from .method.attention import ImageKV, ImageKVLayer, attention, decoupled_attention
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
    "VARIANTS",
    "AdapterSpec",
    "FaceCrop",
    "IPAdapter",
    "IdentityProjection",
    "IdentityResamplerProjection",
    "ImageKV",
    "ImageKVLayer",
    "Layer",
    "LinearProjection",
    "Lora",
    "MLPProjection",
    "ResamplerProjection",
    "WeightsFile",
    "attention",
    "attention_names",
    "build_adapter",
    "decoupled_attention",
    "describe",
    "detect",
    "encoder_of_width",
    "extra_keys",
    "layer_table",
    "layer_weights",
    "layer_widths",
    "licence",
    "lora_of",
    "needs",
    "read_adapter",
    "read_weights",
    "told",
    "write_adapter",
    "write_pickle",
]
