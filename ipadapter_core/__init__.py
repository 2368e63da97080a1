"""IP-Adapter (arXiv 2308.06721): the method, in plain torch. Shared by the ComfyUI nodes and the trainer."""

from .adapter import IPAdapter, build_adapter, layer_widths
from .attention import ImageKV, ImageKVLayer, attention, decoupled_attention
from .checkpoint import WeightsFile, read_adapter, read_weights, write_adapter
from .detect import detect
from .layers import Layer, layer_table
from .spec import AdapterSpec, LinearProjection, ResamplerProjection, encoder_of_width
from .weighting import LAYER_WEIGHTS, layer_weights

__all__ = [
    "LAYER_WEIGHTS",
    "AdapterSpec",
    "IPAdapter",
    "ImageKV",
    "ImageKVLayer",
    "Layer",
    "LinearProjection",
    "ResamplerProjection",
    "WeightsFile",
    "attention",
    "build_adapter",
    "decoupled_attention",
    "detect",
    "encoder_of_width",
    "layer_table",
    "layer_weights",
    "layer_widths",
    "read_adapter",
    "read_weights",
    "write_adapter",
]
