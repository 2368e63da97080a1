"""Adapters of 8 bits with scales beside them are what they were before they were made small; other kinds are named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ipadapter_core import build_adapter, read_adapter, read_encoder
from ipadapter_core.__main__ import convert, main
from tests.support import clip_models, published

FP8, FP8_WIDE = torch.float8_e4m3fn, torch.float8_e5m2
LARGEST = {FP8: 448.0, FP8_WIDE: 57344.0, torch.int8: 127.0}
# Half a step of each kind's largest numbers, as a part of them.
ROUNDING = {FP8: 2**-4, FP8_WIDE: 2**-3, torch.int8: 0.5 / 127}


def quantised(
    tensors: dict[str, Tensor], ending: str, by_row: str = "", dtype: torch.dtype = FP8
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Matrices in 8 bits with scales under this ending, and what they are worth, written out number by number.

    by_row: "" one scale for all; "flat" [D], "column" [D, 1].
    """
    small: dict[str, Tensor] = {}
    worth: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if value.ndim != 2:
            small[key] = worth[key] = value
            continue
        rows = value.abs().amax(1) if by_row else value.abs().max().expand(len(value))
        scales = rows / LARGEST[dtype]
        bits = value / scales[:, None]
        small[key] = (bits.round() if dtype == torch.int8 else bits).to(dtype)
        exact = small[key].float().numpy()
        worth[key] = torch.from_numpy(np.stack([exact[row] * scales[row].numpy() for row in range(len(value))]))
        shaped = {"": scales[0], "flat": scales, "column": scales[:, None]}[by_row]
        small[key.removesuffix("weight") + ending] = shaped.clone()
    return small, worth


WEIGHTS = published.small()
KINDS = {
    "ComfyUI's first": ("scale_weight", "", FP8, {"scaled_fp8": torch.empty(0, dtype=FP8)}),
    "with the mark of a full product": ("scale_weight", "", FP8, {"scaled_fp8": torch.empty(2, dtype=FP8)}),
    "without a mark": ("scale_weight", "", FP8, {}),
    "e5m2": ("scale_weight", "", FP8_WIDE, {"scaled_fp8": torch.empty(0, dtype=FP8_WIDE)}),
    "weight_scale": ("weight_scale", "", FP8, {}),
    "by row": ("weight_scale", "flat", FP8, {}),
    "by row, columns": ("scale_weight", "column", FP8, {"scaled_fp8": torch.empty(0, dtype=FP8)}),
    "int8": ("weight_scale", "column", torch.int8, {}),
}


@pytest.mark.parametrize("aliases", [False, True], ids=["published names", "trainer's names"])
@pytest.mark.parametrize("layout", ["safetensors", "pickle"])
@pytest.mark.parametrize("kind", KINDS)
def test_scales_are_multiplied_in(kind: str, layout: str, aliases: bool, tmp_path: Path) -> None:
    ending, by_row, dtype, mark = KINDS[kind]
    small, worth = quantised(WEIGHTS, ending, by_row, dtype)
    layers = [key.removesuffix(ending) for key in small if key.endswith(ending)]
    beside = {f"{layer}scale_input": torch.tensor(3.0) for layer in layers}
    names = {"image_proj.": "module.image_proj_model.", "ip_adapter.": "module.adapter_modules."} if aliases else {}
    file = small | mark | beside
    for ours, theirs in names.items():
        file = {key.replace(ours, theirs): value for key, value in file.items()}
    path = tmp_path / "small"
    save_file(file, path) if layout == "safetensors" else torch.save(file, path)
    found = read_adapter(path)
    assert found.tensors.keys() == WEIGHTS.keys() and found.is_changed
    for key, value in worth.items():
        assert torch.equal(found.tensors[key], value), key
        if value.ndim == 2:
            difference = (found.tensors[key] - WEIGHTS[key]).abs().max() / WEIGHTS[key].abs().max()
            assert difference <= ROUNDING[dtype], (key, float(difference))
    build_adapter(found.tensors)


def with_formats(small: dict[str, Tensor], fmt: dict[str, object]) -> dict[str, Tensor]:
    said = list(json.dumps(fmt).encode())
    layers = [key.removesuffix("weight_scale") for key in small if key.endswith("weight_scale")]
    return small | {f"{layer}comfy_quant": torch.tensor(said, dtype=torch.uint8) for layer in layers}


def test_the_second_layout_of_comfyui(tmp_path: Path) -> None:
    """A format for each layer, or in the metadata; float8 as bytes too."""
    small, worth = quantised(WEIGHTS, "weight_scale")
    save_file(with_formats(small, {"format": "float8_e4m3fn"}), tmp_path / "each")
    layers = {key.removesuffix(".weight_scale"): {"format": "float8_e4m3fn"} for key in small if "weight_scale" in key}
    save_file(
        small, tmp_path / "metadata", {"_quantization_metadata": json.dumps({"layers": layers}), "family": "base"}
    )
    as_bytes = {key: value.view(torch.uint8) if value.dtype == FP8 else value for key, value in small.items()}
    save_file(with_formats(as_bytes, {"format": "float8_e4m3fn"}), tmp_path / "bytes")
    for name in ("each", "metadata", "bytes"):
        found = read_adapter(tmp_path / name)
        assert all(torch.equal(found.tensors[key], value) for key, value in worth.items())
        assert "_quantization_metadata" not in found.metadata
    assert read_adapter(tmp_path / "metadata").metadata == {"family": "base"}


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
K = "ip_adapter.1.to_k_ip."
OTHER: dict[str, tuple[Change, str]] = {
    "nvfp4": (lambda small: with_formats(small, {"format": "nvfp4"}), "quantised as nvfp4"),
    "mxfp8": (lambda small: with_formats(small, {"format": "mxfp8"}), "quantised as mxfp8"),
    "turned": (
        lambda small: with_formats(small, {"format": "int8_tensorwise", "convrot": True}),
        "quantised as convrot",
    ),
    "in blocks": (lambda small: small | {f"{K}weight_scale": torch.ones(8, 4)}, "one for a part of a row"),
    "as many as columns": (lambda small: small | {f"{K}weight_scale": torch.ones(32)}, "one for a part of a row"),
    "4 bits": (lambda small: small | {f"{K}weight": torch.ones(8, 16).byte()}, "fewer than 8 bits"),
    "damaged": (lambda small: small | {f"{K}comfy_quant": torch.ones(3)}, "is damaged"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_other_kinds_are_named(kind: str, tmp_path: Path) -> None:
    change, words = OTHER[kind]
    save_file(change(quantised(WEIGHTS, "weight_scale")[0]), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{words}.*: (use the file in fp16|download it again)"):
        read_adapter(tmp_path / "a.safetensors")


def test_a_scale_of_nan_is_named(tmp_path: Path) -> None:
    small, _ = quantised(WEIGHTS, "scale_weight")
    save_file(small | {f"{K}scale_weight": torch.tensor(float("nan"))}, tmp_path / "a")
    with pytest.raises(ValueError, match="NaN or infinite weights"):
        read_adapter(tmp_path / "a")


def test_conversion_says_what_it_changes(tmp_path: Path) -> None:
    small, worth = quantised(WEIGHTS, "scale_weight")
    save_file(small, tmp_path / "a.safetensors")
    assert "scales multiplied in" in convert(tmp_path / "a.safetensors", tmp_path / "b.bin")
    found = read_adapter(tmp_path / "b.bin")
    assert not found.is_changed and all(torch.equal(found.tensors[key], value) for key, value in worth.items())
    assert "bit for bit" in convert(tmp_path / "b.bin", tmp_path / "c.safetensors")


def test_encoders_too(tmp_path: Path) -> None:
    tower = {key: value.float() for key, value in clip_models.random_weights(clip_models.small_config()).items()}
    small, worth = quantised(tower, "scale_weight")
    save_file(small | {"scaled_fp8": torch.empty(0, dtype=FP8)}, tmp_path / "model.safetensors")
    clip_models.small_config().save_pretrained(tmp_path)
    found = read_encoder(tmp_path)
    assert len(found.weights) == len(tower)
    for key, value in worth.items():
        assert torch.equal(found.weights[key.removeprefix("vision_model.")], value), key


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GGUF\3\0\0\0" + bytes(64), "is a GGUF file"),
        (b"\x93NUMPY\1\0" + bytes(64), "is an array of numpy"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "is an HDF5 file"),
    ],
    ids=["GGUF", "numpy", "HDF5"],
)
def test_files_of_other_kinds_are_named(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    assert main([str(tmp_path / "a.safetensors")]) == 1
    said = capsys.readouterr().err
    assert words in said and "download it again" not in said and said.count("\n") == 1
