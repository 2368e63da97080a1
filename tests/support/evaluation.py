"""What an evaluation needs, tiny and random: a base, adapters of it, judges of every kind, and a folder as COCO's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, Dinov2Config, Dinov2Model

from ipadapter_core import write_safetensors
from tests.support import clip_models, coco, runs
from trainer.base.frozen import Frozen
from trainer.base.tokenizer import clip_tokenizer
from trainer.settings.config import Config
from trainer.step.adapter import metadata, new_adapter, trained_parameters

DINO_SEEN = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}, "resample": 3,
             "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}  # fmt: skip


@dataclass(frozen=True)
class World:
    """Folders and files by what they are."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name)

    def arguments(self, out: Path, *more: str) -> list[str]:
        """A small run of three adapters and the base alone, by all judges but faces."""
        return [
            "evaluate", *(f"{kind}={self.folder / kind}.safetensors" for kind in ("plain", "plus", "simple")),
            "--no-adapter", "--base", self.base, "--encoder", self.encoder, "--data", self.coco, "--out", str(out),
            "--clip", self.clip, "--dino", self.dino, "--style", str(self.folder / "style.safetensors"),
            "--steps", "2", "--samples", "2", "--batch", "2", "--resolution", "32", "--device", "cpu",
            "--text-prompts", "a red star", "{caption}, at night", "--text-weights", "0", "1",
            "--text-references", "3", "--resamples", "200", *more,
        ]  # fmt: skip


def write_world(folder: Path, number: int = 5) -> World:
    """All of it; `number` references, which is no multiple of a batch of two."""
    coco.write_coco(folder / "coco", number)
    write_clip(folder / "clip")
    write_dino(folder / "dino")
    write_style(folder / "style.safetensors")
    runs.tiny_config(folder)
    for name, values in (("plain", {}), ("plus", {"family": "plus", "width": 64, "depth": 1, "num_tokens": 4}),
                         ("simple", {"attention": "appended"})):  # fmt: skip
        write_adapter(folder / f"{name}.safetensors", runs.tiny_config(folder, adapter=values))
    return World(folder)


def write_adapter(path: Path, config: Config) -> Path:
    """The adapter of a config at step 0, its K' and V' those of the text, as the trainer writes it."""
    frozen = Frozen(config.model)
    adapter = new_adapter(config, frozen.base.sites, frozen.encoder_facts)
    tensors = {name: value.detach() for name, value in trained_parameters(adapter)}
    tensors |= {name: value for name, value in adapter.state_dict().items() if name in dict(adapter.named_buffers())}
    write_safetensors(path, tensors, metadata(adapter.spec, config, 0, "epsilon"))
    return path


def write_clip(folder: Path) -> Path:
    """A CLIP of both towers as a transformers folder."""
    torch.manual_seed(3)
    text = CLIPTextConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, bos_token_id=49406,
        eos_token_id=49407,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        hidden_act="gelu",
    )  # fmt: skip
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    ).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    seen = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", **seen}))
    return folder


def write_dino(folder: Path) -> Path:
    """A DINOv2 as a transformers folder, for pictures of 28 pixels."""
    torch.manual_seed(4)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(DINO_SEEN))
    return folder


def style_config() -> CLIPVisionConfig:
    """Of a width that a published encoder has, as CSD's backbone."""
    return clip_models.small_config(
        hidden_size=768, intermediate_size=64, num_hidden_layers=1, num_attention_heads=12, image_size=32,
        patch_size=16, projection_dim=8, hidden_act="quick_gelu",
    )  # fmt: skip


def write_style(path: Path) -> Path:
    """A file with CSD's names."""
    tower = clip_models.to_open_clip(clip_models.random_weights(style_config()))
    tensors = {f"module.backbone.{key}": value.float() for key, value in tower.items() if key != "proj"}
    generator = torch.Generator().manual_seed(6)
    for name in ("style", "content"):
        tensors[f"module.last_layer_{name}"] = torch.randn(768, 8, generator=generator)
    write_safetensors(path, tensors, {})
    return path
