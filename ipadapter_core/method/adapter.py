"""The adapter: a projection and one K'/V' layer for each cross-attention layer of the base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from .attention import ImageKVLayer
from .given import Given
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
        self.widths = {index: widths[index] for index in spec.layers}
        self.image_proj = build_projection(spec, operations, **factory)
        if spec.has_text_projection:
            self.encoder_hid_proj = operations.Linear(spec.projected_dim, spec.context_dim, **factory)
        self.ip_adapter = nn.ModuleDict(
            {str(index): ImageKVLayer(spec.context_dim, widths[index], operations, **factory) for index in spec.layers}
        )

    def image_tokens(self, given: Given, shortcut_scale: float = 1.0) -> Tensor:
        """What P pictures or faces give, to image tokens [P, T, C].

        given: what the spec asks for. shortcut_scale: of what FaceID plus v2 adds to the identity's tokens.
        Where the file has no projection of text and the base needs one, C is its input's width.
        """
        tokens = self.image_proj(given, shortcut_scale)
        return self.encoder_hid_proj(tokens) if self.spec.has_text_projection else tokens

    def keys_values(self, tokens: Tensor, layers: Iterable[int] | None = None) -> dict[int, tuple[Tensor, Tensor]]:
        """Image tokens [P, T, C] to K' and V' [P, T, D] of all layers or some, by checkpoint index."""
        layers = self.spec.layers if layers is None else layers
        return {index: self.ip_adapter[str(index)](tokens) for index in layers}
