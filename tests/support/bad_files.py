"""Files that are no adapter, or no longer one; each is written beside a good one named GOOD."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

GOOD = "good.safetensors"


class Attack:
    """Unpickled without care, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.mark,)


def lora(path: Path) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{name}.lora_down.weight": torch.zeros(4, 320), f"{name}.lora_up.weight": torch.zeros(320, 4)}, path)


def checkpoint(path: Path) -> None:
    layer = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2"
    save_file({f"{layer}.to_{name}.weight": torch.zeros(8, 8) for name in "qkv"}, path)


def truncated(path: Path) -> None:
    data = (path.parent / GOOD).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def with_code(path: Path) -> None:
    torch.save({"image_proj": {}, "ip_adapter": {"1.to_k_ip.weight": Attack(path.with_name("mark"))}}, path)


def with_nan(path: Path) -> None:
    key = "ip_adapter.31.to_v_ip.weight"
    weights = load_file(path.with_name(GOOD))
    spoiled = weights[key].clone()
    spoiled[0, 0] = float("nan")
    save_file(weights | {key: spoiled}, path)


def without_a_layer(path: Path) -> None:
    weights = load_file(path.with_name(GOOD))
    del weights["ip_adapter.31.to_v_ip.weight"]
    save_file(weights, path)


# How it is written, and words of the sentence that refuses it.
FILES = {
    "a LoRA": (lora, ["is a LoRA, not an IP-Adapter", "LoRA loader"]),
    "a checkpoint": (checkpoint, ["is a full checkpoint, not an IP-Adapter", "Load Checkpoint"]),
    "a web page": (lambda path: path.write_text("<!DOCTYPE html><html></html>"), ["is a web page", "download"]),
    "empty": (lambda path: path.touch(), ["is empty", "download it again"]),
    "truncated": (truncated, ["truncated or damaged", "download it again"]),
    "code in a pickle": (with_code, ["holds more than weights", "was not loaded"]),
    "NaN": (with_nan, ["NaN or infinite weights", "ip_adapter.31.to_v_ip.weight"]),
    "missing weights": (without_a_layer, ["lacks 1 weights", "download it again"]),
}
