"""Nodes for tests in a real server: models small enough for hundreds of prompts, and a latent's digest."""

from __future__ import annotations

import hashlib
import runpy
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy_api.latest import ComfyExtension, io

# By its path: in a server only this folder is a package.
UNETS = runpy.run_path(str(Path(__file__).resolve().parents[3] / "tools" / "unets.py"))["UNETS"]
CONFIGS = {base: UNETS[base] | {"model_channels": 32} for base in ("SD15", "SDXL", "Kolors")}
POOLED = {"SD15": 768, "SDXL": 1280, "Kolors": 4096}
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
    """SD1.5, or SDXL or Kolors, with a tenth of its width, and an encoder of two layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = [io.Model.Output(), io.ClipVision.Output(), io.Conditioning.Output(), io.Conditioning.Output()]
        base = io.Combo.Input("base", options=list(CONFIGS), default="SD15", optional=True)
        return io.Schema(node_id="TestSmallModels", category="test", inputs=[base], outputs=outputs)

    @classmethod
    def execute(cls, base: str = "SD15") -> io.NodeOutput:
        supported = comfy.supported_models.SD15 if base == "SD15" else comfy.supported_models.SDXL
        config = supported(dict(CONFIGS[base]))
        config.unet_config = dict(CONFIGS[base])
        model = config.get_model({}, device="cpu")
        if base == "Kolors":
            model.diffusion_model.encoder_hid_proj = torch.nn.Linear(4096, 2048)
        encoder = comfy.clip_vision.ClipVisionModel(ENCODER)
        seeded(model.diffusion_model)
        seeded(encoder.model)
        patcher = comfy.model_patcher.ModelPatcher(
            model, load_device=comfy.model_management.get_torch_device(), offload_device=torch.device("cpu")
        )
        texts = (
            [[torch.randn(1, 77, CONFIGS[base]["context_dim"]), {"pooled_output": torch.randn(1, POOLED[base])}]]
            for _ in range(2)
        )
        return io.NodeOutput(patcher, encoder, *texts)


class Prompt:
    """An image prompt of one face with random features, of whatever the three methods are asked for."""

    def __init__(self, pooled: int, hidden: int, states: int) -> None:
        self.cond = {"pooled": torch.randn(1, pooled), "penultimate": torch.randn(1, states, hidden)}

    def features(self, feature: str, crop: Any = None) -> torch.Tensor:
        return self.cond[feature]

    def zero_states(self) -> torch.Tensor:
        return torch.zeros_like(self.cond["penultimate"])

    def identities(self) -> torch.Tensor:
        return torch.ones(1, 512)


class RandomPrompt(io.ComfyNode):
    """An image prompt of given widths, for adapters of every family."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sizes = [io.Int.Input(name, default=1024) for name in ("pooled", "hidden", "states", "seed")]
        outputs = [io.Custom("IMAGE_PROMPT").Output()]
        return io.Schema(node_id="TestRandomPrompt", category="test", inputs=sizes, outputs=outputs)

    @classmethod
    def execute(cls, pooled: int, hidden: int, states: int, seed: int) -> io.NodeOutput:
        torch.manual_seed(seed)
        return io.NodeOutput(Prompt(pooled, hidden, states))


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
        return [SmallModels, RandomPrompt, LatentDigest]


async def comfy_entrypoint() -> Extension:
    return Extension()
