"""The adapter: a projection and one K'/V' layer for each cross-attention layer of the base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..facts.families import detect
from ..facts.lora import LORA_KEY
from .attention import ImageKVLayer
from .projection import build_projection
from .spec import AdapterSpec, ResamplerProjection


class IPAdapter(nn.Module):
    """An adapter whose `state_dict` is the published safetensors layout, key for key.

    spec: what `detect` found. widths: checkpoint index of each layer to its width D.
    operations, dtype, device: the host's layer classes and where their weights are made.
    """

    def __init__(self, spec: AdapterSpec, widths: Mapping[int, int], operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.spec = spec
        self.image_proj = build_projection(spec, operations, **factory)
        if spec.has_text_projection:
            self.encoder_hid_proj = operations.Linear(spec.projected_dim, spec.context_dim, **factory)
        self.ip_adapter = nn.ModuleDict(
            {str(index): ImageKVLayer(spec.context_dim, widths[index], operations, **factory) for index in spec.layers}
        )

    def image_tokens(
        self, features: Tensor | None, identities: Tensor | None = None, shortcut_scale: float = 1.0
    ) -> Tensor:
        """What the spec asks for, to image tokens [B, T, C].

        features: [B, F] (pooled) or [B, S, F] (penultimate). identities: [B, 512], of faces.
        shortcut_scale: of what FaceID plus v2 adds to the identity's tokens.
        Where the file has no projection of text and the base needs one, C is its input's width.
        """
        if self.spec.identity is None:
            tokens = self.image_proj(features)
        elif self.spec.feature is not None:
            tokens = self.image_proj(features, identities, shortcut_scale)
        else:
            assert identities is not None
            as_sequence = isinstance(self.spec.projection, ResamplerProjection)
            tokens = self.image_proj(identities[:, None] if as_sequence else identities)
        return self.encoder_hid_proj(tokens) if self.spec.has_text_projection else tokens

    def keys_values(self, tokens: Tensor, layers: Iterable[int] | None = None) -> dict[int, tuple[Tensor, Tensor]]:
        """Image tokens [B, T, C] to K' and V' [B, T, D] of all layers or some, by checkpoint index."""
        layers = self.spec.layers if layers is None else layers
        return {index: self.ip_adapter[str(index)](tokens) for index in layers}


def layer_widths(tensors: Mapping[str, Any], spec: AdapterSpec) -> dict[int, int]:
    """The width D of each layer of a flat adapter, by checkpoint index."""
    return {index: tensors[f"ip_adapter.{index}.to_k_ip.weight"].shape[0] for index in spec.layers}


def build_adapter(
    tensors: Mapping[str, Tensor], operations: Any = nn, device: Any = None, spec: AdapterSpec | None = None
) -> IPAdapter:
    """Build and fill an adapter in the file's own precision; keys that no adapter has are left out.

    spec: what the adapter is; None: what `detect` tells.
    Raises ValueError when the tensors are no adapter, or weights are missing, of the wrong shape or whole numbers.
    """
    spec = spec or detect(tensors)
    adapter = IPAdapter(spec, layer_widths(tensors, spec), operations, device="meta")
    expected = adapter.state_dict()
    missing = [key for key in expected if key not in tensors]
    if missing:
        raise ValueError(f"the adapter lacks {len(missing)} weights ({missing[0]}, ...): download it again")
    for key, value in expected.items():
        if tensors[key].shape != value.shape:
            raise ValueError(
                f"the adapter's {key} is {tuple(tensors[key].shape)}, expected {tuple(value.shape)}: download it again"
            )
        if not tensors[key].is_floating_point():
            raise ValueError(
                f"the adapter's {key} holds {str(tensors[key].dtype).removeprefix('torch.')}, expected numbers with a "
                "point: choose a file of 32, 16 or 8 bit floats"
            )
    dtype = _widest(tensors[key].dtype for key in expected)
    adapter.load_state_dict({key: tensors[key].to(device=device, dtype=dtype) for key in expected}, assign=True)
    return adapter.eval().requires_grad_(False)


def _widest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """One precision that holds the weights of a file of several: 8 bit in 16 bit, both kinds of 16 bit in 32."""
    found = set(dtypes)
    size = max(dtype.itemsize for dtype in found)
    widest = {dtype for dtype in found if dtype.itemsize == size}
    return widest.pop() if len(widest) == 1 else torch.float32


def extra_keys(tensors: Mapping[str, Any], spec: AdapterSpec) -> list[str]:
    """Keys of a flat adapter that are no part of it, its LoRA aside."""
    known = IPAdapter(spec, layer_widths(tensors, spec), device="meta").state_dict()
    return sorted(key for key in tensors if key not in known and not LORA_KEY.match(key))
