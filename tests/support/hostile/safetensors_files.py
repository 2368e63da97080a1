"""Safetensors that are cut, that lie about themselves, or that hold other things than an adapter."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import save

from tests.support.hostile import Case, good, of

DTYPES = ["F4", "F6_E2M3", "U16", "U64", "C64", "I8", "BOOL", "F64", "F128", "", "f32", "object", "F32 ", None, 7, [1]]
OFFSETS: list[Any] = [
    [0, 1024], [1024, 0], [-4, 1020], [0, 2**62], [2**64, 2**64 + 4], [1, 1025], [0], [], "all", [0, 1, 2],
]  # fmt: skip
SHAPES: list[Any] = [
    [2**40, 2**40], [2**64, 1], [0, 2**62], [-8, -32], [8.0, 32], ["8", "32"], 256, None, [1] * 100_000, [8, 33], [],
]  # fmt: skip


def cases() -> Iterator[Case]:
    yield from _cut()
    yield from _headers()
    yield from _weights()


def _cut() -> Iterator[Case]:
    for layout, data in (("safetensors", good.safetensors()), ("zip", good.zipped()), ("pickles", good.in_a_row())):
        length = len(data)
        places = [1, 2, 4, 7, 8, 9, 15, 64, *(length * n // 12 for n in range(1, 12)), length - 30, length - 1]
        for place in sorted(set(places)):
            yield of(f"{layout} cut at {place}", "cut", data[:place])
        yield of(f"{layout} without its first byte", "cut", data[1:])
        if layout != "safetensors":  # where zeros are weights like others
            yield of(f"{layout} with zeros from its first quarter", "cut", data[: length // 4].ljust(length, b"\0"))
    yield of("empty", "cut", b"")
    yield of("safetensors with more at its end", "cut", good.safetensors() + b"more")
    yield of("zeros", "cut", bytes(5000))


def _headers() -> Iterator[Case]:
    whole = good.safetensors()
    length = int.from_bytes(whole[:8], "little")
    for claimed in (0, 1, 2, length - 1, length + 1, len(whole), 99_999_999, 100_000_001, 2**32, 2**63 - 1, 2**64 - 1):
        yield of(f"header length {claimed}", "header length", claimed.to_bytes(8, "little") + whole[8:])
    for name, text in {
        "no JSON": b"{image_proj}",
        "a list": b"[]",
        "a number": b"7",
        "null": b"null",
        "not UTF-8": b'{"\xff\xfe":1}',
        "nested 50,000 deep": b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "no end": b'{"image_proj.proj.weight":{"dtype":"F32"',
        "metadata of numbers": b'{"__metadata__":{"step":7}}',
        "metadata that is a list": b'{"__metadata__":[1,2]}',
        "metadata nested": b'{"__metadata__":{"a":{"b":"c"}}}',
        "a tensor that is a list": b'{"image_proj.proj.weight":[1,2,3]}',
        "a tensor without a shape": b'{"image_proj.proj.weight":{"dtype":"F32","data_offsets":[0,4]}}',
        "200,000 empty tensors": _many_empty(200_000),
        "10,000 empty tensors": _many_empty(10_000),
        "one name of 3 MB": json.dumps({"x" * 3_000_000: _entry()}).encode(),
        "metadata of 9 MB": json.dumps({"__metadata__": {"note": "x" * 9_000_000}}).encode(),
    }.items():
        yield of(f"header: {name}", "header", good.with_header(text, b""))
    for name, change in _changed_entries():
        header = good.header()
        header["ip_adapter.1.to_k_ip.weight"] |= change
        yield of(f"entry with {name}", "claims of safetensors", good.with_header(header))
    yield of("one name twice", "duplicate keys", good.with_header(_twice()))
    yield of("one name twice, other data", "duplicate keys", good.with_header(_twice([0, 1024])))
    yield of("an empty name", "header", good.with_header({"": _entry()}, b""))


def _entry() -> dict[str, Any]:
    return {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


def _many_empty(count: int) -> bytes:
    return json.dumps({str(n): _entry() for n in range(count)}, separators=(",", ":")).encode()


def _twice(offsets: list[int] | None = None) -> bytes:
    header = good.header()
    name = "ip_adapter.1.to_k_ip.weight"
    entry = copy.deepcopy(header[name]) | ({"data_offsets": offsets} if offsets else {})
    text = json.dumps(header)
    return f'{text[:-1]}, "{name}": {json.dumps(entry)}}}'.encode()


def _changed_entries() -> Iterator[tuple[str, dict[str, Any]]]:
    for offsets in OFFSETS:
        yield f"offsets {offsets}", {"data_offsets": offsets}
    for shape in SHAPES:
        yield f"shape {str(shape)[:30]}", {"shape": shape}
    for dtype in DTYPES:
        yield f"dtype {dtype!r}", {"dtype": dtype}


def _weights() -> Iterator[Case]:
    name = "ip_adapter.3.to_v_ip.weight"
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2):
        for value in (float("nan"), float("inf"), float("-inf")):
            weights = {key: tensor.to(dtype) for key, tensor in good.weights().items()}
            spoiled = weights[name].float()
            spoiled[-1, -1] = value
            yield of(f"{value} in {dtype}", "NaN and inf", save(weights | {name: spoiled.to(dtype)}))
    for dtype in (torch.int8, torch.bool, torch.int64, torch.complex64, torch.uint8):
        weights = {key: tensor.to(dtype) for key, tensor in good.weights().items()}
        yield of(f"weights of {dtype}", "wrong dtypes", save(weights))
        yield of(
            f"one weight of {dtype}", "wrong dtypes", save(good.weights() | {name: good.weights()[name].to(dtype)})
        )
    for label, change in _mixed().items():
        weights = {key: tensor for key, tensor in good.weights().items() if key not in change}
        extra = {key: torch.zeros(shape) for key, shape in change.items() if shape is not None}
        yield of(f"mixed: {label}", "families mixed", save(weights | extra))


def _mixed() -> dict[str, dict[str, tuple[int, ...] | None]]:
    """What replaces (None: removes) weights of a base adapter, by name."""
    k3, v3 = "ip_adapter.3.to_k_ip.weight", "ip_adapter.3.to_v_ip.weight"
    proj, bias, norm = "image_proj.proj.weight", "image_proj.proj.bias", "image_proj.norm.weight"
    return {
        "a FaceID projection without its end": {proj: None, "image_proj.proj.0.weight": (1024, 512)},
        "a perceiver without its projection": {proj: None, "image_proj.perceiver_resampler.proj_in.weight": (32, 1280)},
        "latents without a resampler": {proj: None, "image_proj.latents": (1, 16, 32)},
        "latents of one dimension": {proj: None, "image_proj.latents": (16,), "image_proj.proj_in.weight": (32, 16)},
        "a projection of one dimension": {proj: (128,)},
        "a projection of three": {proj: (128, 4, 4)},
        "a projection for half a token": {proj: (48, 16), bias: (48,)},
        "a projection of no rows": {proj: (0, 16), bias: (0,)},
        "no norm": {norm: None},
        "a norm of another width": {norm: (64,), "image_proj.norm.bias": (64,)},
        "K' without V'": {v3: None},
        "V' without K'": {k3: None},
        "K' of one dimension": {"ip_adapter.1.to_k_ip.weight": (256,)},
        "layers for two texts": {k3: (8, 64), v3: (8, 64)},
        "K' and V' of two widths": {v3: (16, 32)},
        "layers of a transformer": {k3: None, v3: None, "ip_adapter.0.to_k_ip.weight": (8, 32)},
        "a layer of a huge number": {"ip_adapter.99999999999999999999.to_k_ip.weight": (8, 32)},
        "no layers": dict.fromkeys(key for key in good.weights() if key.startswith("ip_adapter.")),
        "no projection": dict.fromkeys(key for key in good.weights() if key.startswith("image_proj.")),
        "FLUX's projection": {proj: None, "ip_adapter_proj_model.proj.weight": (128, 16)},
        "no names at all": {**dict.fromkeys(good.weights()), "": (1,)},
    }
