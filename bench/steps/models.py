"""Models and data that a training's bench reads: SD1.5 and ViT-H at full size with random weights, or tiny ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from trainer.base.files import build_vae, layout_folder, read_unet_config, text_encoder_of
from trainer.base.tokenizer import clip_tokenizer

ROOT = Path(__file__).resolve().parents[2]
NUM_PICTURES = 8
VIT_H = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14, "projection_dim": 1024, "hidden_act": "gelu",
}  # fmt: skip


def write_models(folder: Path, is_tiny: bool, device: str = "cpu") -> None:
    """Write `base` and `encoder` as folders that trainer and transformers load, and `data/train.json` with pictures.

    device: where the weights are drawn; those of CUDA are written in bf16.
    """
    torch.manual_seed(0)
    if is_tiny:
        from tests.support import tiny_models

        tiny_models.write_base(folder / "base")
        tiny_models.write_encoder(folder / "encoder")
    else:
        with torch.device(device):
            _write_full(folder, torch.bfloat16 if device == "cuda" else torch.float32)
    _write_data(folder / "data")


def _write_full(folder: Path, dtype: torch.dtype) -> None:
    layout, base = layout_folder("sd15"), folder / "base"
    UNet2DConditionModel.from_config(read_unet_config(layout)).to(dtype).save_pretrained(base / "unet")
    build_vae(layout / "vae").to(dtype).save_pretrained(base / "vae")
    text_encoder_of(layout / "text_encoder").to(dtype).save_pretrained(base / "text_encoder")
    clip_tokenizer().save_pretrained(base / "tokenizer")
    shutil.copytree(layout / "scheduler", base / "scheduler")
    CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_H)).to(dtype).save_pretrained(folder / "encoder")


def _write_data(folder: Path) -> None:
    """Smooth noise as JPEG files of 640 x 512, each with a caption."""
    folder.mkdir(parents=True)
    random, rows = np.random.default_rng(0), []
    for number in range(NUM_PICTURES):
        small = Image.fromarray(random.integers(0, 255, (32, 40, 3), dtype=np.uint8))
        small.resize((640, 512), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=92)
        rows.append({"image_file": f"{number}.jpg", "text": f"a picture of smooth noise, number {number}"})
    (folder / "train.json").write_text(json.dumps(rows))
