"""Stage 5, the base: a stock UNet2DConditionModel, epsilon prediction on SD1.5's noise schedule.

What makes so small a training work: branches that start at zero, and hard, noisy timesteps drawn more often.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from ..places import Places
from ..world.scenes import ATTRIBUTES, BACKGROUND, COLOUR, DEVELOP, SHAPE, caption, captions, random_scenes
from ..world.settings import GUIDANCE
from . import autoencoder
from .data import Pictures, training_pictures
from .fitting import Recipe, fit, write_weights
from .judge import load as load_judge
from .sampling import Denoiser, sample
from .sheets import save_rows
from .text import tokenise

RECIPE = Recipe(steps=2_600, batch=64, rate=1.5e-3, betas=(0.9, 0.99), warmup=200, average=0.998)
NO_TEXT = 0.12  # of the captions are empty


def scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )


def build() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,  # the number of heads, as in SD1.5's config
    )
    for name, module in unet.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and name.endswith(("conv2", "to_out.0", "conv_out")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return unet


@dataclass(frozen=True)
class Texts:
    """Every caption's states, and which four belong to a picture. numbers [N, 4]; states [T, 77, 64], empty first."""

    numbers: Tensor
    states: Tensor

    def drawn(self, rows: Tensor, generator: torch.Generator, without: float = NO_TEXT) -> Tensor:
        """One of a picture's captions, or the empty one: states [B, 77, 64]."""
        place = torch.randint(4, (len(rows),), generator=generator, device=generator.device)
        number, chance = self.numbers[rows, place], torch.rand(len(rows), generator=generator, device=generator.device)
        return self.states[torch.where(chance < without, 0, number)]

    def to(self, device: str) -> Texts:
        return Texts(self.numbers.to(device), self.states.to(device))


@torch.no_grad()
def text_states(places: Places, texts: list[str]) -> Tensor:
    """Texts to states [N, 77, 64]."""
    tokenizer = CLIPTokenizer.from_pretrained(places.base / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(places.base / "text_encoder", dtype=torch.float32)
    return torch.cat(
        [
            encoder(tokenise(tokenizer, texts[start : start + 64])).last_hidden_state
            for start in range(0, len(texts), 64)
        ]
    )


def texts_of(places: Places, data: Pictures) -> Texts:
    known = {"": 0}
    numbers = [[known.setdefault(text, len(known)) for text in captions(scene)] for scene in data.scenes]
    return Texts(torch.tensor(numbers), text_states(places, list(known)))


def latents_of(places: Places, data: Pictures, name: str, device: str = "cpu") -> Tensor:
    """Latents [N, 4, 8, 8] of pictures, computed on a device and kept in the work folder."""
    path: Path = places.work / f"{name}.latents.pt"
    if not path.exists():
        model = autoencoder.load(places).to(device)
        rows = torch.arange(len(data)).split(1_024)
        found = [autoencoder.encode(model, data.of(part).to(device)).cpu() for part in rows]
        torch.save(torch.cat(found), path)
    return torch.load(path, weights_only=True)


class Noising:
    """Noise on latents, at timesteps that are drawn with max(.15, min(1, 5 / SNR))."""

    def __init__(self, device: str = "cpu") -> None:
        self.scheduler = scheduler()
        kept = self.scheduler.alphas_cumprod.to(device)
        self.chances = (5 * (1 - kept) / kept).clamp(0.15, 1)

    def __call__(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [B, 4, 8, 8] to noisy ones, their timesteps [B], and the noise."""
        timesteps = torch.multinomial(self.chances, len(latents), replacement=True, generator=generator)
        noise = torch.randn(latents.shape, generator=generator, device=generator.device)
        return self.scheduler.add_noise(latents, noise, timesteps), timesteps, noise


def train(places: Places) -> None:
    torch.manual_seed(0)
    data, unet, noising = training_pictures(places.work), build(), Noising()
    latents, texts = latents_of(places, data, "training"), texts_of(places, data)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (RECIPE.batch,), generator=generator)
        noisy, timesteps, noise = noising(latents[rows], generator)
        return F.mse_loss(unet(noisy, timesteps, texts.drawn(rows, generator)).sample, noise)

    fit("base", unet, loss, RECIPE, places.work)
    scheduler().save_config(places.base / "scheduler")
    unet.save_config(places.base / "unet")
    write_weights(places.base / "unet" / "diffusion_pytorch_model.safetensors", unet)


def load(places: Places) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(places.base / "unet", local_files_only=True).requires_grad_(False)


@torch.no_grad()
def report(places: Places, count: int = 256) -> dict[str, object]:
    """Text alone: the share of pictures that show what their caption names, by the judge."""
    scenes = random_scenes(count, torch.Generator().manual_seed(DEVELOP))
    texts = [caption(scene, True, True) for scene in scenes]
    denoiser = Denoiser(load(places), text_states(places, texts), text_states(places, [""]))
    pictures = autoencoder.decode(autoencoder.load(places), sample(denoiser, count, guidance=GUIDANCE))
    save_rows(places.sheets / "base_text.png", list(pictures[:64].split(16)))
    found = load_judge(places).verdict(pictures).attributes
    names = list(ATTRIBUTES)
    right = {names[one]: round(float((found[:, one] == scenes[:, one]).float().mean()), 4)
             for one in (SHAPE, COLOUR, BACKGROUND)}  # fmt: skip
    return {"pictures": count, "guidance": GUIDANCE, "right": right}
