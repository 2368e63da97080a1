"""The published adapter layouts, as tensors on the meta device: shapes and names, no data.

Projections come from the reference package's constructors; the widths of the layers are written out here.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.support import oracles

# Checkpoint index to width: down, up, middle.
SD15_WIDTHS = dict(zip(range(1, 32, 2), [320] * 2 + [640] * 2 + [1280] * 5 + [640] * 3 + [320] * 3 + [1280]))
SDXL_WIDTHS = {n: 640 if n <= 7 or 109 <= n <= 119 else 1280 for n in range(1, 140, 2)}
WIDTHS = {768: SD15_WIDTHS, 1024: SD15_WIDTHS, 2048: SDXL_WIDTHS}  # by context width: SD1.5, SD2, SDXL


def base(context_dim: int, feature_dim: int) -> dict[str, Tensor]:
    """base, light, vit-G: linear + LayerNorm, 4 tokens."""
    with torch.device("meta"):
        projection = oracles.ImageProjModel(context_dim, feature_dim, clip_extra_context_tokens=4)
    return adapter(projection, context_dim)


def plus(context_dim: int, width: int, num_heads: int, feature_dim: int = 1280) -> dict[str, Tensor]:
    """plus, plus-face, composition: a resampler, 16 tokens."""
    return adapter(resampler(width, num_heads, feature_dim, context_dim), context_dim)


def resampler(width: int, num_heads: int, feature_dim: int, context_dim: int) -> nn.Module:
    with torch.device("meta"):
        return oracles.Resampler(width, 4, 64, num_heads, 16, feature_dim, context_dim)


def full_face() -> dict[str, Tensor]:
    """full-face: an MLP on each hidden state, 257 tokens."""
    with torch.device("meta"):
        projection = oracles.FullProjection(768, 1280)
    return adapter(projection, 768)


def face_id(context_dim: int = 768, tokens: int = 4, has_lora: bool = True) -> dict[str, Tensor]:
    """FaceID, and FaceID portrait (16 tokens, no LoRA)."""
    with torch.device("meta"):
        projection = oracles.IdentityProjection(context_dim, 512, tokens)
    return adapter(projection, context_dim) | (lora(context_dim) if has_lora else {})


def face_id_plus(
    context_dim: int, token_dim: int | None = None, feature_dim: int = 1280, tokens: int = 4, has_lora: bool = True
) -> dict[str, Tensor]:
    """FaceID plus v1 and v2; Kolors' has tokens as wide as its text before the base projects it."""
    width = token_dim or context_dim
    with torch.device("meta"):
        projection = oracles.IdentityProjection(width, 512, tokens)
        perceiver = oracles.Resampler(width, 4, 64, width // 64, 1, feature_dim, width).state_dict()
    tensors = adapter(projection, context_dim) | (lora(context_dim) if has_lora else {})
    return tensors | {
        f"image_proj.perceiver_resampler.{key}": value for key, value in perceiver.items() if key != "latents"
    }


def lora(context_dim: int, widths: Mapping[int, int] | None = None, rank: int = 128) -> dict[str, Tensor]:
    """FaceID's LoRA: every attention layer, self (even) and cross (odd)."""
    tensors = {}
    for cross, width in (widths or WIDTHS[context_dim]).items():
        for index in (cross - 1, cross):
            for name in ("to_q", "to_k", "to_v", "to_out"):
                read = context_dim if index == cross and name in ("to_k", "to_v") else width
                tensors[f"ip_adapter.{index}.{name}_lora.down.weight"] = torch.empty(rank, read, device="meta")
                tensors[f"ip_adapter.{index}.{name}_lora.up.weight"] = torch.empty(width, rank, device="meta")
    return tensors


def adapter(projection: nn.Module, context_dim: int, widths: Mapping[int, int] | None = None) -> dict[str, Tensor]:
    """A flat adapter of this projection with K' and V' for the base of this context."""
    tensors = {f"image_proj.{key}": value for key, value in projection.state_dict().items()}
    for index, width in (widths or WIDTHS[context_dim]).items():
        for name in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{index}.{name}.weight"] = torch.empty(width, context_dim, device="meta")
    return tensors


LAYOUTS = {
    "base SD1.5 (ViT-H), light": base(768, 1024),
    "base SD1.5 vit-G": base(768, 1280),
    "base SDXL (bigG)": base(2048, 1280),
    "base SDXL vit-h": base(2048, 1024),
    "plus, plus-face, composition SD1.5": plus(768, 768, 12),
    "plus, plus-face, composition SDXL vit-h": plus(2048, 1280, 20),
    "full-face SD1.5": full_face(),
    "FaceID SD1.5": face_id(768),
    "FaceID SDXL": face_id(2048),
    "FaceID portrait SD1.5": face_id(768, 16, has_lora=False),
    "FaceID portrait SDXL": face_id(2048, 16, has_lora=False),
    "FaceID portrait unnorm SDXL": plus(2048, 1280, 20, feature_dim=512),
    "FaceID plus v1 and v2 SD1.5": face_id_plus(768),
    "FaceID plus v2 SDXL": face_id_plus(2048),
    "Kolors plus": plus(2048, 2048, 12, feature_dim=1024),
    "Kolors FaceID plus": face_id_plus(2048, 4096, 1024, 6, has_lora=False),
}


def filled(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Seeded random data for a layout; what normalises stays near one."""
    generator = torch.Generator().manual_seed(seed)
    random = {key: torch.randn(value.shape, generator=generator) * 0.02 for key, value in tensors.items()}
    return {
        key: (value + 1 if value.ndim == 1 and key.endswith("weight") else value).to(dtype)
        for key, value in random.items()
    }


def small(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """An adapter of two layers with a 32-wide text, 5 KB."""
    with torch.device("meta"):
        projection = torch.nn.ModuleDict({"proj": torch.nn.Linear(16, 128), "norm": torch.nn.LayerNorm(32)})
    return filled(adapter(projection, 32, {1: 8, 3: 8}), dtype)
