"""The reference trainer's loop, written anew from its description, and the least that any loop must do.

For every sample and step: decode and cut the picture, encode it with the VAE, encode picture and caption, then the UNet
in fp32 with the image tokens behind the text's. Attention processors and projection are the PyPI package's own.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

# the package imports a name that diffusers has moved
diffusers.pipelines.controlnet.MultiControlNetModel = diffusers.MultiControlNetModel
from ip_adapter.attention_processor import AttnProcessor2_0, IPAttnProcessor2_0  # noqa: E402
from ip_adapter.ip_adapter import ImageProjModel  # noqa: E402

TOKENS = 4
Step = Callable[[], None]


class Adapted(nn.Module):
    """The frozen UNet with the package's processors and projection; trained are `projection` and `layers`."""

    def __init__(self, folder: Path, embed_dim: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype).requires_grad_(False)
        context = self.unet.config.cross_attention_dim
        self.projection = ImageProjModel(context, embed_dim, TOKENS)
        processors: dict[str, nn.Module] = {}
        for name in self.unet.attn_processors:
            layer = self.unet.get_submodule(name.removesuffix(".processor"))
            if ".attn2." not in name:
                processors[name] = AttnProcessor2_0()
                continue
            made = IPAttnProcessor2_0(layer.to_q.in_features, context, num_tokens=TOKENS)
            made.load_state_dict(
                {"to_k_ip.weight": layer.to_k.weight.float(), "to_v_ip.weight": layer.to_v.weight.float()}
            )
            processors[name] = made
        self.unet.set_attn_processor(dict(processors))
        self.layers = nn.ModuleList(self.unet.attn_processors.values())

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor, embeds: Tensor) -> Tensor:
        """Noisy latents [B, 4, h, w], text states [B, 77, D], image embeddings [B, E] to the predicted noise."""
        states = torch.cat([text, self.projection(embeds).to(text.dtype)], dim=1)
        return self.unet(noisy, timesteps, states).sample


class Pictures(Dataset[dict[str, Any]]):
    """The list's samples, decoded and tokenised at each read, with the paper's drops."""

    def __init__(self, folder: Path, base: Path, pixels: int, seen: int) -> None:
        self.folder = folder
        self.rows = json.loads((folder / "train.json").read_text())
        self.tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
        self.processor = CLIPImageProcessor(size={"shortest_edge": seen}, crop_size=seen)
        self.transform = transforms.Compose(
            [
                transforms.Resize(pixels, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.CenterCrop(pixels),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, drawn = self.rows[index], random.random()
        image = Image.open(self.folder / row["image_file"]).convert("RGB")
        text = "" if drawn < 0.05 or 0.10 <= drawn < 0.15 else row["text"]
        tokens = self.tokenizer(text, max_length=77, padding="max_length", truncation=True, return_tensors="pt")
        return {
            "pixels": self.transform(image),
            "condition": self.processor(images=image, return_tensors="pt").pixel_values[0],
            "tokens": tokens.input_ids[0],
            "is_dropped": 0.05 <= drawn < 0.15,
        }


def reference_step(folder: Path, pixels: int, batch: int, device: str, dtype: torch.dtype) -> Step:
    """One step of the reference's loop, ready to be called again and again."""
    mixed = {torch.bfloat16: "bf16", torch.float32: "no"}[dtype]
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=mixed)
    base = folder / "base"
    vae = AutoencoderKL.from_pretrained(base / "vae").requires_grad_(False).to(device, dtype)
    text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder").requires_grad_(False).to(device, dtype)
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "encoder").requires_grad_(False).to(device, dtype)
    scheduler = DDPMScheduler.from_pretrained(base / "scheduler")
    model = Adapted(base, encoder.config.projection_dim)
    trained = itertools.chain(model.projection.parameters(), model.layers.parameters())
    data = Pictures(folder / "data", base, pixels, encoder.config.image_size)
    loader = DataLoader(data, shuffle=True, batch_size=batch, num_workers=0)
    model, optimiser, loader = accelerator.prepare(
        model, torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01), loader
    )
    batches = _endless(loader)

    def step() -> None:
        sample = next(batches)
        with torch.no_grad():
            latents = vae.encode(sample["pixels"].to(device, dtype)).latent_dist.sample() * vae.config.scaling_factor
            embeds = encoder(sample["condition"].to(device, dtype)).image_embeds
            embeds = torch.where(sample["is_dropped"].to(device)[:, None], torch.zeros_like(embeds), embeds)
            text = text_encoder(sample["tokens"].to(device))[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), device=device)
        prediction = model(scheduler.add_noise(latents, noise, timesteps), timesteps, text, embeds)
        loss = F.mse_loss(prediction.float(), noise.float())
        accelerator.gather(loss.repeat(batch)).mean().item()
        accelerator.backward(loss)
        optimiser.step()
        optimiser.zero_grad()

    return step


def floor_step(folder: Path, pixels: int, batch: int, device: str, dtype: torch.dtype) -> Step:
    """Forward and backward of the frozen UNet with the adapter's layers on given tensors: no data, no optimiser."""
    embed_dim = json.loads((folder / "encoder" / "config.json").read_text())["projection_dim"]
    model = Adapted(folder / "base", embed_dim, dtype).to(device)
    context, side = model.unet.config.cross_attention_dim, pixels // 8
    noisy, noise = (torch.randn(batch, 4, side, side, device=device, dtype=dtype) for _ in range(2))
    text, embeds = (
        torch.randn(batch, 77, context, device=device, dtype=dtype),
        torch.randn(batch, embed_dim, device=device),
    )
    timesteps = torch.full((batch,), 500, device=device)
    # trained weights stay in fp32, as in the loops
    # without a cache of lowered weights, which a graph would not fill again
    lowered = torch.autocast(device, dtype, cache_enabled=False) if dtype != torch.float32 else nullcontext()

    def step() -> None:
        with lowered:
            prediction = model(noisy, timesteps, text, embeds)
        F.mse_loss(prediction.float(), noise.float()).backward()
        model.zero_grad(set_to_none=True)

    return step


def _endless(loader: DataLoader[Any]) -> Iterator[dict[str, Any]]:
    while True:
        yield from loader
