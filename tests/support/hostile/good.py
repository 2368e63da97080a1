"""A good adapter of 5 KB, whole in each layout, to be broken."""

from __future__ import annotations

import io
import json
import pickle
from functools import cache
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tests.support import published


@cache
def weights() -> dict[str, Tensor]:
    """Two layers with a 32-wide text."""
    with torch.device("meta"):
        projection = torch.nn.ModuleDict({"proj": torch.nn.Linear(16, 128), "norm": torch.nn.LayerNorm(32)})
    return published.filled(published.adapter(projection, 32, {1: 8, 3: 8}))


def nested() -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in weights().items():
        group, _, rest = key.partition(".")
        groups[group][rest] = value
    return groups


@cache
def safetensors() -> bytes:
    return save(weights(), {"note": "good"})


@cache
def zipped() -> bytes:
    return _saved(True)


@cache
def in_a_row() -> bytes:
    return _saved(False)


def _saved(is_zip: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(nested(), buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def header() -> dict[str, Any]:
    """The safetensors file's header: name to dtype, shape and offsets."""
    data = safetensors()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def body() -> bytes:
    data = safetensors()
    return data[8 + int.from_bytes(data[:8], "little") :]


def with_header(content: Any, data: bytes | None = None) -> bytes:
    """A safetensors file with this header (text as it is, else as JSON)."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + (body() if data is None else data)


def in_a_row_with(content: bytes) -> bytes:
    """torch's older layout with this pickle in place of the names."""
    magic, protocol = 0x1950A86A20F9469CFC6C, 1001
    system = {"protocol_version": protocol, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return b"".join(pickle.dumps(value, 2) for value in (magic, protocol, system)) + content + pickle.dumps([], 2)
