"""The published adapter layouts, as tensors on the meta device: shapes and names, no data.

Projections come from the reference package's constructors; the widths of the layers are written out here.
"""

from collections.abc import Mapping

import oracles
import torch
from torch import Tensor, nn

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
    with torch.device("meta"):
        proj = nn.Sequential(nn.Linear(1280, 1280), nn.GELU(), nn.Linear(1280, 768), nn.LayerNorm(768))
        return adapter(nn.ModuleDict({"proj": proj}), 768)


def face_id(tokens: int = 4, has_lora: bool = True) -> dict[str, Tensor]:
    """FaceID SD1.5, and FaceID portrait (16 tokens, no LoRA)."""
    with torch.device("meta"):
        proj = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, tokens * 768))
        tensors = adapter(nn.ModuleDict({"proj": proj, "norm": nn.LayerNorm(768)}), 768)
        if has_lora:
            tensors["ip_adapter.0.to_q_lora.down.weight"] = torch.empty(128, 320)
            tensors["ip_adapter.0.to_q_lora.up.weight"] = torch.empty(320, 128)
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
}


def filled(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Seeded random data for a layout; what normalises stays near one."""
    generator = torch.Generator().manual_seed(seed)
    random = {key: torch.randn(value.shape, generator=generator) * 0.02 for key, value in tensors.items()}
    return {
        key: (value + 1 if value.ndim == 1 and key.endswith("weight") else value).to(dtype)
        for key, value in random.items()
    }
