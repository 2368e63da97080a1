"""IP-Adapter (arXiv 2308.06721): the method, in plain torch. Shared by the ComfyUI nodes and the trainer."""

from .adapter import IPAdapter, build_adapter, extra_keys, layer_widths
from .attention import ImageKV, ImageKVLayer, attention, decoupled_attention
from .checkpoint import WeightsFile, read_adapter, read_weights, write_adapter, write_pickle
from .describe import describe, licence, needs
from .detect import detect
from .layers import Layer, attention_names, layer_table
from .lora import Lora, lora_of
from .spec import (
    AdapterSpec,
    FaceCrop,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    ResamplerProjection,
    encoder_of_width,
)
from .variant import CHOICES as VARIANTS
from .variant import told
from .weighting import LAYER_WEIGHTS, layer_weights

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
