"""Nodes for tests in a real server: models small enough for hundreds of prompts, and a latent's digest."""

from __future__ import annotations

import hashlib
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy_api.latest import ComfyExtension, io

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "dtype": torch.float32, "legacy": False,
    "use_spatial_transformer": True, "use_temporal_attention": False, "use_temporal_resblock": False,
    "model_channels": 32, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1, "use_linear_in_transformer": False, "context_dim": 768, "adm_in_channels": None,
    "num_heads": 8, "num_head_channels": -1,
}  # fmt: skip
ENCODER = {
    "model_type": "clip_vision_model", "hidden_size": 64, "num_channels": 3, "patch_size": 32, "image_size": 224,
    "num_hidden_layers": 2, "intermediate_size": 64, "projection_dim": 1024, "num_attention_heads": 2,
    "hidden_act": "gelu",
}  # fmt: skip


def seeded(model: torch.nn.Module) -> None:
    torch.manual_seed(0)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.05)


class SmallModels(io.ComfyNode):
    """SD1.5 with a tenth of its width, and an encoder of two layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = [io.Model.Output(), io.ClipVision.Output(), io.Conditioning.Output(), io.Conditioning.Output()]
        return io.Schema(node_id="TestSmallModels", category="test", inputs=[], outputs=outputs)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        config = comfy.supported_models.SD15(dict(UNET))
        config.unet_config = dict(UNET)
        model = config.get_model({}, device="cpu")
        encoder = comfy.clip_vision.ClipVisionModel(ENCODER)
        seeded(model.diffusion_model)
        seeded(encoder.model)
        patcher = comfy.model_patcher.ModelPatcher(
            model, load_device=comfy.model_management.get_torch_device(), offload_device=torch.device("cpu")
        )
        return io.NodeOutput(patcher, encoder, [[torch.randn(1, 77, 768), {}]], [[torch.randn(1, 77, 768), {}]])


class LatentDigest(io.ComfyNode):
    """The SHA-256 of a latent's bytes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestLatentDigest", category="test", inputs=[io.Latent.Input("latent")], is_output_node=True
        )

    @classmethod
    def execute(cls, latent: dict[str, Any]) -> io.NodeOutput:
        digest = hashlib.sha256(latent["samples"].contiguous().cpu().numpy().tobytes()).hexdigest()
        return io.NodeOutput(ui={"text": (digest,)})


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [SmallModels, LatentDigest]


async def comfy_entrypoint() -> Extension:
    return Extension()
