"""What a file is, told by keys and shapes alone: every published layout, and what people put in its place."""

import diffusers
import published
import pytest
import torch
import transformers

from ipadapter_core import AdapterSpec, LinearProjection, ResamplerProjection, detect

SD15_LAYERS = tuple(range(1, 32, 2))
SDXL_LAYERS = tuple(range(1, 140, 2))

SPECS = {
    "base SD1.5 (ViT-H), light": AdapterSpec("base", "pooled", 1024, 768, 4, SD15_LAYERS, LinearProjection()),
    "base SD1.5 vit-G": AdapterSpec("base", "pooled", 1280, 768, 4, SD15_LAYERS, LinearProjection()),
    "base SDXL (bigG)": AdapterSpec("base", "pooled", 1280, 2048, 4, SDXL_LAYERS, LinearProjection()),
    "base SDXL vit-h": AdapterSpec("base", "pooled", 1024, 2048, 4, SDXL_LAYERS, LinearProjection()),
    "plus, plus-face, composition SD1.5": AdapterSpec(
        "plus", "penultimate", 1280, 768, 16, SD15_LAYERS, ResamplerProjection(768, 4, 12, 3072)
    ),
    "plus, plus-face, composition SDXL vit-h": AdapterSpec(
        "plus", "penultimate", 1280, 2048, 16, SDXL_LAYERS, ResamplerProjection(1280, 4, 20, 5120)
    ),
}
# For people: base model and encoder of each layout.
NAMES = {
    "base SD1.5 (ViT-H), light": ("SD1.5", "CLIP ViT-H/14"),
    "base SD1.5 vit-G": ("SD1.5", "CLIP ViT-bigG/14"),
    "base SDXL (bigG)": ("SDXL", "CLIP ViT-bigG/14"),
    "base SDXL vit-h": ("SDXL", "CLIP ViT-H/14"),
    "plus, plus-face, composition SD1.5": ("SD1.5", "CLIP ViT-H/14"),
    "plus, plus-face, composition SDXL vit-h": ("SDXL", "CLIP ViT-H/14"),
}


@pytest.mark.parametrize("name", published.LAYOUTS)
def test_published_layouts(name):
    spec = detect(published.LAYOUTS[name])
    print(name, "is", spec)
    assert spec == SPECS[name]
    assert (spec.base, spec.encoder) == NAMES[name]


def test_parameters_of_the_paper():
    """22 M, as the paper says; the exact counts are those of the published SD1.5 file."""
    sizes = {key: value.numel() for key, value in published.LAYOUTS["base SD1.5 (ViT-H), light"].items()}
    projection = sum(size for key, size in sizes.items() if key.startswith("image_proj."))
    layers = sum(size for key, size in sizes.items() if key.startswith("ip_adapter."))
    print(f"{projection + layers:,} parameters: {projection:,} in the projection, {layers:,} in K' and V'")
    assert (projection, layers, projection + layers) == (3_150_336, 19_169_280, 22_319_616)


def test_sd2():
    assert detect(published.base(1024, 1024)).base == "SD2"


def test_odd_base_is_described_in_numbers():
    """SSD-1B and the like: other depths are an adapter like any other."""
    tensors = {key: value for key, value in published.base(2048, 1280).items() if not key.startswith("ip_adapter.1")}
    spec = detect(tensors)
    assert "2048-wide text" in spec.base and f"{len(spec.layers)} cross-attention layers" in spec.base


def shapes(*keys: str) -> dict[str, torch.Tensor]:
    return {key: torch.empty(4, 4, device="meta") for key in keys}


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
    "FaceID": (published.face_id(), "a FaceID adapter"),
    "FaceID portrait": (published.face_id(16, has_lora=False), "a FaceID portrait adapter"),
    "FaceID portrait unnorm SDXL": (published.plus(2048, 1280, 20, feature_dim=512), "a FaceID portrait adapter"),
    "FaceID plus": (
        published.face_id(has_lora=False) | shapes("image_proj.perceiver_resampler.proj_in.weight"),
        "a FaceID adapter",
    ),
    "full-face": (published.full_face(), "a full-face adapter"),
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
}


@pytest.mark.parametrize("name", [*STRANGERS, *OTHER_FAMILIES])
def test_strangers_get_their_sentence(name):
    tensors, words = (STRANGERS | OTHER_FAMILIES)[name]
    with pytest.raises(ValueError) as error:
        detect(tensors)
    print(f"{name}: {error.value}")
    assert words in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
