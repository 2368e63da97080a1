"""The adapter: a projection and one K'/V' layer for each cross-attention layer of the base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from .attention import ImageKVLayer
from .detect import detect
from .projection import build_projection
from .spec import AdapterSpec


class IPAdapter(nn.Module):
    """An adapter whose `state_dict` is the published safetensors layout, key for key.

    spec: what `detect` found. widths: checkpoint index of each layer to its width D.
    operations, dtype, device: the host's layer classes and where their weights are made.
    """

    def __init__(self, spec: AdapterSpec, widths: Mapping[int, int], operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.spec = spec
        self.image_proj = build_projection(spec, operations, **factory)
        self.ip_adapter = nn.ModuleDict(
            {str(index): ImageKVLayer(spec.context_dim, widths[index], operations, **factory) for index in spec.layers}
        )

    def image_tokens(self, features: Tensor) -> Tensor:
        """Features [B, F] (pooled) or [B, S, F] (penultimate) to image tokens [B, T, C]."""
        return self.image_proj(features)

    def keys_values(self, tokens: Tensor, layers: Iterable[int] | None = None) -> dict[int, tuple[Tensor, Tensor]]:
        """Image tokens [B, T, C] to K' and V' [B, T, D] of all layers or some, by checkpoint index."""
        layers = self.spec.layers if layers is None else layers
        return {index: self.ip_adapter[str(index)](tokens) for index in layers}


def layer_widths(tensors: Mapping[str, Any], spec: AdapterSpec) -> dict[int, int]:
    """The width D of each layer of a flat adapter, by checkpoint index."""
    return {index: tensors[f"ip_adapter.{index}.to_k_ip.weight"].shape[0] for index in spec.layers}


def build_adapter(tensors: Mapping[str, Tensor], operations: Any = nn, device: Any = None) -> IPAdapter:
    """Detect, build and fill an adapter in the file's own dtype; keys that no adapter has are left out.

    Raises ValueError when the tensors are no adapter, or weights are missing or of the wrong shape.
    """
    spec = detect(tensors)
    first = tensors[f"ip_adapter.{spec.layers[0]}.to_k_ip.weight"]
    adapter = IPAdapter(spec, layer_widths(tensors, spec), operations, dtype=first.dtype, device="meta")
    expected = adapter.state_dict()
    missing = [key for key in expected if key not in tensors]
    if missing:
        raise ValueError(f"the adapter lacks {len(missing)} weights ({missing[0]}, ...): download it again")
    for key, value in expected.items():
        if tensors[key].shape != value.shape:
            raise ValueError(
                f"the adapter's {key} is {tuple(tensors[key].shape)}, expected {tuple(value.shape)}: download it again"
            )
    weights = {key: tensors[key].to(device=device, dtype=first.dtype) for key in expected}
    adapter.load_state_dict(weights, assign=True)
    return adapter.eval().requires_grad_(False)
