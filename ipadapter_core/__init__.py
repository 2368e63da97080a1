"""IP-Adapter (arXiv 2308.06721): the method, in plain torch. Shared by the ComfyUI nodes and the trainer.

What is named here is what other rooms use; everything else is of the core alone.
"""

from .facts.bases import BASES, Base, base_name, base_of, find_base
from .facts.bases import NAMES as BASE_NAMES
from .facts.detect import detect
from .facts.encoders import (
    ARCHITECTURES,
    ENCODERS,
    Encoder,
    encoder_name,
    encoder_pixels,
    encoder_square,
    encoder_words,
    normalised_square,
)
from .facts.families import BY_NAME as FAMILIES
from .facts.families import Family
from .facts.lora import MATRICES, Lora, lora_of
from .facts.presets import LAYER_WEIGHTS, layer_weights, layer_words, module_numbers, swapped_layers
from .facts.unet import attention_names, comfyui_block, unet_sites
from .facts.variants import VARIANTS, resolve_variant
from .files.build import build_adapter, extra_keys, layer_widths
from .files.describe import describe, headline, licence, needs
from .files.encoders import (
    encoder_of_open_clip,
    encoder_of_weights,
    image_tower,
    read_config,
    read_encoder,
    read_encoder_facts,
    to_open_clip,
)
from .files.read import ShapesFile, WeightsFile, read_adapter, read_shapes, read_weights
from .files.values import read_tensor, read_values
from .files.write import write_pickle, write_safetensors
from .method.adapter import IPAdapter
from .method.attention import (
    ImageKV,
    ImageKVLayer,
    add_image_attention,
    attention,
    attention_by_heads,
    decoupled_attention,
    image_share,
    joint_attention,
    split_heads,
)
from .method.combine import COMBINE, CONCATENATE, ONE_FOR_EACH, check_weights, merged, picture_weights
from .method.frames import EASINGS, frame_weights
from .method.given import Given, nothing, read_identities
from .method.influence import Curve, Influence, Placement
from .method.layers import ALL, Layers
from .method.scaling import SCALINGS, V_ONLY, scaled
from .method.site import Site
from .method.spec import (
    AdapterSpec,
    FaceCrop,
    Feature,
    Identity,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    ResamplerProjection,
)

__all__ = [
    "ALL",
    "ARCHITECTURES",
    "BASES",
    "BASE_NAMES",
    "COMBINE",
    "CONCATENATE",
    "EASINGS",
    "ENCODERS",
    "FAMILIES",
    "LAYER_WEIGHTS",
    "MATRICES",
    "ONE_FOR_EACH",
    "SCALINGS",
    "VARIANTS",
    "V_ONLY",
    "AdapterSpec",
    "Base",
    "Curve",
    "Encoder",
    "FaceCrop",
    "Family",
    "Feature",
    "Given",
    "IPAdapter",
    "Identity",
    "IdentityProjection",
    "IdentityResamplerProjection",
    "ImageKV",
    "ImageKVLayer",
    "Influence",
    "Layers",
    "LinearProjection",
    "Lora",
    "MLPProjection",
    "Placement",
    "ResamplerProjection",
    "ShapesFile",
    "Site",
    "WeightsFile",
    "add_image_attention",
    "attention",
    "attention_by_heads",
    "attention_names",
    "base_name",
    "base_of",
    "build_adapter",
    "check_weights",
    "comfyui_block",
    "decoupled_attention",
    "describe",
    "detect",
    "encoder_name",
    "encoder_of_open_clip",
    "encoder_of_weights",
    "encoder_pixels",
    "encoder_square",
    "encoder_words",
    "extra_keys",
    "find_base",
    "frame_weights",
    "headline",
    "image_share",
    "image_tower",
    "joint_attention",
    "layer_weights",
    "layer_widths",
    "layer_words",
    "licence",
    "lora_of",
    "merged",
    "module_numbers",
    "needs",
    "normalised_square",
    "nothing",
    "picture_weights",
    "read_adapter",
    "read_config",
    "read_encoder",
    "read_encoder_facts",
    "read_identities",
    "read_shapes",
    "read_tensor",
    "read_values",
    "read_weights",
    "resolve_variant",
    "scaled",
    "split_heads",
    "swapped_layers",
    "to_open_clip",
    "unet_sites",
    "write_pickle",
    "write_safetensors",
]
