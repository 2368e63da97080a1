"""Files that people put in place of an adapter are named, in one sentence that says what to do."""

import diffusers
import pytest
import torch
import transformers

from ipadapter_core import detect
from tests.support import published


def shapes(*keys: str) -> dict[str, torch.Tensor]:
    return {key: torch.empty(4, 4, device="meta") for key in keys}


def shapes_of(key: str, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta")}


def meta(build) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return build().state_dict()


VISION = transformers.CLIPVisionConfig(num_hidden_layers=1)
STRANGERS = {
    "LoRA, kohya": (
        shapes("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"),
        "a LoRA",
    ),
    "LoRA, kohya, of a text encoder": (shapes("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"), "a LoRA"),
    "LoRA, diffusers": (
        shapes("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora.down.weight"),
        "a LoRA",
    ),
    "LoRA, peft": (shapes("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"), "a LoRA"),
    "LyCORIS": (shapes("lycoris_unet_mid_block_attentions_0_proj_in.lokr_w1"), "a LoRA"),
    "checkpoint SD1.5": (
        shapes(
            "model.diffusion_model.input_blocks.0.0.weight",
            "first_stage_model.encoder.conv_in.weight",
            "cond_stage_model.transformer.text_model.embeddings.position_ids",
        ),
        "a full checkpoint",
    ),
    "checkpoint SDXL": (
        shapes("model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.0.transformer.text_model.x"),
        "a full checkpoint",
    ),
    "ControlNet": (
        shapes("control_model.input_blocks.0.0.weight", "control_model.zero_convs.0.0.weight"),
        "a ControlNet",
    ),
    "ControlNet, diffusers": (meta(diffusers.ControlNetModel), "a ControlNet"),
    "UNet, diffusers": (meta(diffusers.UNet2DConditionModel), "a UNet alone"),
    "VAE, diffusers": (meta(diffusers.AutoencoderKL), "a VAE"),
    "VAE, checkpoint": (shapes("first_stage_model.decoder.conv_in.weight"), "a VAE"),
    "encoder, transformers": (meta(lambda: transformers.CLIPVisionModelWithProjection(VISION)), "an image encoder"),
    "encoder, open_clip": (shapes("visual.conv1.weight", "visual.ln_pre.weight"), "an image encoder"),
    "CLIP, transformers": (
        meta(lambda: transformers.CLIPModel(transformers.CLIPConfig(vision_config=VISION.to_dict()))),
        "an image encoder",
    ),
    "text encoder": (shapes("text_model.embeddings.position_embedding.weight"), "a text encoder"),
    "FLUX, XLabs": (
        shapes("ip_adapter_proj_model.proj.weight", "double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight"),
        "a FLUX adapter",
    ),
    "LoRA, FLUX, XLabs": (shapes("double_blocks.0.processor.qkv_lora1.down.weight"), "a LoRA"),
    "LoRA of a FaceID adapter": (shapes("down_blocks.0.attentions.0.attn1.processor.to_q_lora.down.weight"), "a LoRA"),
    "FLUX": (
        shapes("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"),
        "a diffusion transformer",
    ),
    "T2I-Adapter": (meta(diffusers.T2IAdapter), "a T2I-Adapter"),
    "T2I-Adapter, the original's": (shapes("body.0.block1.weight", "conv_in.weight"), "a T2I-Adapter"),
    "upscaler": (
        shapes("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
        "expected image_proj.* and ip_adapter.*",
    ),
    "nothing": ({}, "found the keys none"),
    "image_proj alone": (
        {key: value for key, value in published.base(768, 1024).items() if key.startswith("image_proj.")},
        "or a simple adapter that was trained with appended attention",
    ),
}
# Adapters of families that this version does not run.
OTHER_FAMILIES = {
    "FLUX, InstantX": (
        published.adapter(torch.nn.Sequential(torch.nn.Linear(1152, 2304)), 4096, dict.fromkeys(range(57), 3072)),
        "a FLUX or SD3.5 adapter",
    ),
    "SD3.5, InstantX": (
        published.adapter(published.resampler(1280, 20, 1152, 2432), 2432, dict.fromkeys(range(38), 2432)),
        "a FLUX or SD3.5 adapter",
    ),
    "half of a resampler": (
        {key: value for key, value in published.plus(768, 768, 12).items() if ".layers." not in key},
        "of an unknown kind",
    ),
    "an unknown projection": (
        published.adapter(torch.nn.ModuleDict({"mixer": torch.nn.Linear(4, 4)}), 768),
        "of an unknown kind (found mixer.bias, mixer.weight)",
    ),
    "matrices that are none": (
        published.base(768, 1024) | shapes_of("image_proj.proj.weight", ()),
        "shapes that no adapter has",
    ),
    "a width of nothing": (
        published.face_id() | shapes_of("image_proj.norm.weight", (0,)),
        "shapes that no adapter has",
    ),
}


@pytest.mark.parametrize("name", [*STRANGERS, *OTHER_FAMILIES])
def test_strangers_get_their_sentence(name):
    tensors, words = (STRANGERS | OTHER_FAMILIES)[name]
    with pytest.raises(ValueError) as error:
        detect(tensors)
    print(f"{name}: {error.value}")
    assert words in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
