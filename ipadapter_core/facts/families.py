"""Which adapter a file holds, told by its keys and shapes alone. The only place that looks at keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from ..method.spec import (
    IDENTITY_DIM,
    KOLORS_FEATURES,
    AdapterSpec,
    FaceCrop,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    ResamplerProjection,
)
from .lora import LORA_KEY

LONGEST = 80  # characters of a key in a sentence
HEAD_WIDTH = 64  # of every published resampler
FACE_ID_TOKENS = 4  # FaceID portrait has 16 for each face
FULL_FACE_TOKENS = 257  # one for each hidden state of an encoder with 16 x 16 patches and the class
SDXL_DIM = KOLORS_DIM = 2048  # width of the text that cross-attention reads
VIT_L_DIM = 1024  # hidden width of CLIP ViT-L
IDENTITY_KEYS = {"proj.0.weight", "proj.2.weight", "norm.weight"}

Shapes = Mapping[str, tuple[int, ...]]


class HasShape(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


# What people put in place of an adapter: (a key's pattern, what it is, what to do).
STRANGERS = [
    (r"^ip_adapter_proj_model\.", "a FLUX adapter", "this pack runs adapters for UNet models"),
    (r"^(lora_|lycoris_)|[._]lora\d?[._](up|down|A|B)\.", "a LoRA", "load it with ComfyUI's LoRA loader"),
    (r"^model\.diffusion_model\.|^cond_stage_model\.", "a full checkpoint", "load it with Load Checkpoint"),
    (r"^control_model\.|controlnet_|zero_convs\.|^controlnet", "a ControlNet", "load it with Load ControlNet Model"),
    (r"^(adapter\.)?body\.0\.", "a T2I-Adapter", "load it with Load ControlNet Model"),
    (r"^(vision_model|visual)\.", "an image encoder", "put it in models/clip_vision"),
    (r"^(first_stage_model|decoder|encoder)\.", "a VAE", "load it with Load VAE"),
    (r"^(text_model|transformer\.text_model)\.", "a text encoder", "load it with Load CLIP"),
    (r"^(double|joint|transformer)_blocks\.", "a diffusion transformer", "load it with Load Diffusion Model"),
    (r"^(input_blocks|down_blocks|up_blocks|conv_in)", "a UNet alone", "load it with Load Diffusion Model"),
]


def detect(state_dict: Mapping[str, HasShape]) -> AdapterSpec:
    """Tell family, widths, tokens and layers of a flattened adapter (`image_proj.*`, `ip_adapter.*`).

    Only keys and shapes are read, so shapes without data will do. What they cannot tell is left at its default:
    `variant.told` asks the file's metadata and the user.
    Raises ValueError when the file is no adapter, or of a family that this version does not run.
    """
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    layers = _layers(shapes)
    if any(index % 2 == 0 for index in layers):  # a UNet's cross-attention is odd; transformers count on without gaps
        raise ValueError(
            "this file is a FLUX or SD3.5 adapter, a family that this version does not run: choose one for a UNet model"
        )
    proj = {key.removeprefix("image_proj."): shape for key, shape in shapes.items() if key.startswith("image_proj.")}
    try:
        context_dim = shapes[f"ip_adapter.{layers[0]}.to_k_ip.weight"][1]
        found = _family(proj, context_dim, any(LORA_KEY.match(key) for key in shapes))
    except (IndexError, ValueError, ZeroDivisionError) as error:  # a matrix that is none
        raise ValueError("the adapter's weights have shapes that no adapter has: download it again") from error
    if found is None:
        raise ValueError(
            f"the adapter's projection is of an unknown kind (found {_some(proj)}): "
            "expected a linear, MLP, resampler or identity projection; please report the file's name"
        )
    return AdapterSpec(
        context_dim=context_dim, layers=layers, has_text_projection="encoder_hid_proj.weight" in shapes, **found
    )


# What a family's function gives: fields of the spec. It is None where the projection is of another family.
Fields = dict[str, Any] | None


def _family(proj: Shapes, context_dim: int, has_lora: bool) -> Fields:
    """The fields that the projection's keys and shapes tell, specific before general."""
    return (
        _face_id_plus(proj, context_dim, has_lora)
        or _face_id(proj, has_lora)
        or _unnorm(proj)
        or _kolors_plus(proj, context_dim)
        or _plus(proj)
        or _full_face(proj)
        or _base(proj, context_dim)
    )


def _face_id(proj: Shapes, has_lora: bool) -> Fields:
    """FaceID, and its portrait: the same keys, without a LoRA and with more tokens."""
    if not (proj.keys() >= IDENTITY_KEYS and proj["proj.0.weight"][1] == IDENTITY_DIM):
        return None
    num_tokens = proj["proj.2.weight"][0] // proj["norm.weight"][0]
    return {
        "family": "FaceID" if has_lora or num_tokens == FACE_ID_TOKENS else "FaceID portrait",
        "feature": None,
        "feature_dim": 0,
        "identity": "normed",
        "num_tokens": num_tokens,
        "projection": IdentityProjection(proj["proj.0.weight"][0]),
        "has_lora": has_lora,
    }


def _face_id_plus(proj: Shapes, context_dim: int, has_lora: bool) -> Fields:
    """FaceID plus, and Kolors': there the tokens are as wide as the text before the base projects it."""
    perceiver = _perceiver(proj, "perceiver_resampler.")
    found = _face_id(proj, has_lora)
    if perceiver is None or found is None:
        return None
    token_dim = proj["norm.weight"][0]
    found |= {
        "family": "FaceID plus",
        "feature": "penultimate",
        "feature_dim": proj["perceiver_resampler.proj_in.weight"][1],
        "projection": IdentityResamplerProjection(proj["proj.0.weight"][0], perceiver),
        "face_crop": FaceCrop("aligned", 256 if context_dim == SDXL_DIM else 224),
        "shortcut": True,  # v2's, and that of every published file but the first one
    }
    if token_dim == context_dim:
        return found
    return found | {
        "family": "Kolors FaceID plus",
        "identity": "raw",
        "token_dim": token_dim,
        "face_crop": FaceCrop("box", 336),
        "feature_length": KOLORS_FEATURES,
        "zero_features": True,
    }


def _plus(proj: Shapes) -> Fields:
    """plus, plus-face, composition: one layout."""
    resampler = _perceiver(proj, "")
    if resampler is None or "latents" not in proj:
        return None
    return {
        "family": "plus",
        "feature": "penultimate",
        "feature_dim": proj["proj_in.weight"][1],
        "num_tokens": proj["latents"][1],
        "projection": resampler,
    }


def _unnorm(proj: Shapes) -> Fields:
    """The resampler of plus on an identity, as a sequence of one and not normed."""
    found = _plus(proj)
    if found is None or found["feature_dim"] != IDENTITY_DIM:
        return None
    return found | {"family": "FaceID portrait unnorm", "feature": None, "feature_dim": 0, "identity": "raw"}


def _kolors_plus(proj: Shapes, context_dim: int) -> Fields:
    """The resampler of plus, as wide as Kolors' text, on ViT-L."""
    found = _plus(proj)
    if found is None or found["feature_dim"] != VIT_L_DIM:
        return None
    is_kolors = context_dim == found["projection"].width == KOLORS_DIM
    return found | {"family": "Kolors plus", "feature_length": KOLORS_FEATURES} if is_kolors else None


def _full_face(proj: Shapes) -> Fields:
    if not proj.keys() >= {"proj.0.weight", "proj.2.weight", "proj.3.weight"}:
        return None
    hidden, feature_dim = proj["proj.0.weight"]
    return {
        "family": "full-face",
        "feature": "penultimate",
        "feature_dim": feature_dim,
        "num_tokens": FULL_FACE_TOKENS,
        "projection": MLPProjection(hidden),
    }


def _base(proj: Shapes, context_dim: int) -> Fields:
    """base, light, vit-G: one layout."""
    if not proj.keys() >= {"proj.weight", "norm.weight"}:
        return None
    rows, feature_dim = proj["proj.weight"]
    return {
        "family": "base",
        "feature": "pooled",
        "feature_dim": feature_dim,
        "num_tokens": rows // context_dim,
        "projection": LinearProjection(),
    }


def _perceiver(proj: Shapes, prefix: str) -> ResamplerProjection | None:
    """The perceiver layers under this prefix, or None where there are none."""
    names = ("proj_in.weight", "proj_out.weight", "layers.0.0.to_q.weight", "layers.0.1.1.weight")
    if any(prefix + name not in proj for name in names):
        return None
    depth = len({key.removeprefix(prefix).split(".")[1] for key in proj if key.startswith(f"{prefix}layers.")})
    return ResamplerProjection(
        width=proj[f"{prefix}proj_in.weight"][0],
        depth=depth,
        num_heads=proj[f"{prefix}layers.0.0.to_q.weight"][0] // HEAD_WIDTH,
        ff_width=proj[f"{prefix}layers.0.1.1.weight"][0],
    )


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    indices = {int(match[1]) for key in shapes if (match := re.match(r"ip_adapter\.(\d+)\.to_k_ip\.weight$", key))}
    if not indices or not any(key.startswith("image_proj.") for key in shapes):
        raise ValueError(_what_it_is_instead(shapes))
    return tuple(sorted(indices))


def _what_it_is_instead(keys: Mapping[str, object]) -> str:
    for pattern, name, action in STRANGERS:
        if any(re.search(pattern, key) for key in keys):
            return f"this file is {name}, not an IP-Adapter: {action}"
    if keys and all(key.startswith("image_proj.") for key in keys):
        return (
            "this file holds image_proj.* alone, without K' and V' (ip_adapter.*): it is a part of an adapter, or a "
            "simple adapter that was trained with appended attention: choose one with decoupled attention"
        )
    return (
        f"this file is not an IP-Adapter: found the keys {_some(keys)}, expected image_proj.* and ip_adapter.*: "
        "choose an adapter file (.safetensors or .bin)"
    )


def _some(keys: Mapping[str, object]) -> str:
    names = [key if len(key) < LONGEST else f"{key[:LONGEST]}..." for key in sorted(keys)]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"
