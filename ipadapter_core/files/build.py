"""An adapter out of a file's tensors: built, filled, its shapes checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..facts.detect import detect
from ..facts.lora import LORA_KEY
from ..method.adapter import IPAdapter
from ..method.spec import AdapterSpec


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
