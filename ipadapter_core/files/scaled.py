"""Weights of 8 bits with scales beside them, as ComfyUI and others write them: multiplied out.

A layer's `weight` is float8 (or int8), its scale `scale_weight` or `weight_scale`: one number, or one for each row.
The scale of what the layer reads (`scale_input`, `input_scale`) is for a faster product alone. A key `scaled_fp8` marks
the file, or a key `comfy_quant` each layer, or the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

SCALES = (".scale_weight", ".weight_scale")
BESIDE = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant", ".weight_scale_2", ".pre_quant_scale")
MARK = "scaled_fp8"
METADATA = "_quantization_metadata"
EIGHT_BITS = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2, "int8_tensorwise": torch.int8}
OTHERWISE = "use the file in fp16, or in fp8 with a scale for each layer or row"


def is_scaled(names: Mapping[str, object]) -> bool:
    """Whether there are scales beside weights."""
    return any(name.endswith(SCALES) for name in names)


def multiplied_out(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights times their scales in fp32, without what is beside them; others as they are.

    Raises ValueError for weights that are quantised in another way.
    """
    formats = _formats(tensors, metadata)
    plain = {
        name: value
        for name, value in tensors.items()
        if not name.endswith(BESIDE) and name != MARK and not name.endswith(f".{MARK}")
    }
    for layer, kind in formats.items():
        if kind not in EIGHT_BITS or f"{layer}.weight_scale_2" in tensors:
            raise ValueError(f"its weights are quantised as {kind}, which is not read here: {OTHERWISE}")
        weight = plain.get(f"{layer}.weight")
        if weight is not None and weight.dtype == torch.uint8:  # bits of float8, where a format had no such numbers
            plain[f"{layer}.weight"] = weight.view(EIGHT_BITS[kind])
    for name, scale in tensors.items():
        for ending in SCALES:
            layer = name.removesuffix(ending) + ".weight"
            if name.endswith(ending) and layer in plain:
                plain[layer] = _product(layer, plain[layer], scale)
    return plain


def _product(name: str, weight: Tensor, scale: Tensor) -> Tensor:
    """weight [D, ...] times a scale of one number, [D], or as many dimensions as the weight has."""
    if weight.dtype == torch.uint8:
        raise ValueError(f"its {name} is quantised in fewer than 8 bits, which is not read here: {OTHERWISE}")
    if scale.numel() == 1:
        scale = scale.reshape(())
    elif scale.ndim == 1 and len(scale) == len(weight):
        scale = scale.view(-1, *(1,) * (weight.ndim - 1))
    elif scale.ndim != weight.ndim or any(n not in (1, size) for n, size in zip(scale.shape, weight.shape)):
        raise ValueError(
            f"its {name} {tuple(weight.shape)} has scales {tuple(scale.shape)}, one for a part of a row: {OTHERWISE}"
        )
    return weight.float() * scale.float()


def _formats(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """How each layer is quantised, where the file says it."""
    said: dict[str, object] = {}
    try:
        if METADATA in metadata:
            said |= json.loads(metadata[METADATA])["layers"]
        for name, value in tensors.items():
            if name.endswith(".comfy_quant"):
                said[name.removesuffix(".comfy_quant")] = json.loads(value.to(torch.uint8).numpy().tobytes())
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"what it says of its own quantisation is damaged ({error}): download it again") from error
    return {layer: _format(facts) for layer, facts in said.items()}


def _format(facts: object) -> str:
    if not isinstance(facts, Mapping):
        return str(facts)
    params = facts.get("params")
    is_turned = facts.get("convrot") or (isinstance(params, Mapping) and params.get("convrot"))
    return "convrot" if is_turned else str(facts.get("format"))
