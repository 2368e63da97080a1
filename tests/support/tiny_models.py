"""Bases and encoders of few parameters, with seeded random weights, as the folders that a user would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderTiny,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from trainer.base.tokenizer import clip_tokenizer

CONTEXT = 32
VOCABULARY = 49408


def write_base(
    folder: Path,
    kind: str = "sd",
    prediction: str = "epsilon",
    vae: str = "kl",
    seed: int = 0,
    context: int = CONTEXT,
    unet: UNet2DConditionModel | None = None,
) -> Path:
    """A diffusers folder of a tiny base. kind: "sd" (one text encoder) or "sdxl" (two, and size conditioning).

    unet: another one than the tiny, with its context width.
    """
    torch.manual_seed(seed)
    (unet or tiny_unet(kind)).save_pretrained(folder / "unet")
    tiny_vae(vae).save_pretrained(folder / "vae")
    widths = (context // 2, context // 2) if kind == "sdxl" else (context,)
    for number, width in enumerate(widths):
        suffix = "_2" if number else ""
        text = CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=16,
            bos_token_id=49406,
            eos_token_id=49407,
        )
        encoder: Any = CLIPTextModelWithProjection(text) if number else CLIPTextModel(text)
        encoder.save_pretrained(folder / f"text_encoder{suffix}")
        clip_tokenizer("!" if number else "<|endoftext|>").save_pretrained(folder / f"tokenizer{suffix}")
    write_scheduler(folder / "scheduler", prediction)
    return folder


def write_scheduler(folder: Path, prediction: str) -> None:
    """SD1.5's schedule with this prediction; "flow": a rectified flow's, with a shift of 3."""
    if prediction == "flow":
        FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder)
        return
    DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, prediction_type=prediction
    ).save_pretrained(folder)


def tiny_unet(kind: str = "sd") -> UNet2DConditionModel:
    size = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    }
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=CONTEXT,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **(size if kind == "sdxl" else {}),
    )


def tiny_vae(kind: str = "kl") -> Any:
    if kind == "tiny":
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
        )
    if kind == "dc":
        return AutoencoderDC(
            latent_channels=4,
            attention_head_dim=8,
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            encoder_block_out_channels=(8, 8, 16, 16),
            decoder_block_out_channels=(8, 8, 16, 16),
            encoder_layers_per_block=(0, 1, 1, 1),
            decoder_layers_per_block=(0, 1, 1, 1),
            encoder_qkv_multiscales=((), (), (), ()),
            decoder_qkv_multiscales=((), (), (), ()),
            upsample_block_type="interpolate",
            downsample_block_type="pixel_unshuffle",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=1.0,
        )
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    )


def write_encoder(folder: Path, width: int = 32, embed_dim: int = 24, seed: int = 1) -> Path:
    """A transformers folder of a tiny CLIP image encoder, 32 px, 17 hidden states."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=embed_dim,
        hidden_act="gelu",
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder)
    return folder
