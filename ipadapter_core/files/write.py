"""Weights as files, in the two layouts that adapters are published in, each written whole or not at all."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .whole import whole


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write named tensors as safetensors, an adapter's by the published names, atomically.

    The old file stays until the new one is whole.
    Raises OSError when the folder cannot be written or is full; the old file is then untouched.
    """
    data = save({key: value.detach().contiguous() for key, value in tensors.items()}, dict(metadata))
    with whole(path, uuid.uuid4().hex) as part:
        part.write_bytes(data)


def write_pickle(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Write an adapter as published .bin files are, atomically: {"image_proj": {...}, "ip_adapter": {...}}.

    A pickle has no metadata. Raises OSError as `write_safetensors` does.
    """
    nested: dict[str, Any] = {}
    for key, value in tensors.items():
        own = value.detach().contiguous()
        if own.untyped_storage().nbytes() > own.nbytes:  # torch would write all of what it is a part of
            own = own.clone()
        group, _, rest = key.partition(".")
        if rest:
            nested.setdefault(group, {})[rest] = own
        else:
            nested[group] = own
    data = io.BytesIO()
    torch.save(nested, data)
    with whole(path, uuid.uuid4().hex) as part:
        part.write_bytes(data.getvalue())
