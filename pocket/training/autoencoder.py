"""Stage 1, the autoencoder: diffusers' AutoencoderDC, 64 x 64 pixels to 4 x 8 x 8 latents.

Then its decoder alone, on both looks: the latents stay as they are, and the stickers' rims become sharp.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC
from torch import Tensor, nn

from ..places import Places
from ..world.scenes import DEVELOP
from .data import references, stickers, training_pictures
from .fitting import Recipe, fit, write_weights
from .sheets import interleaved, save_rows

RECIPE = Recipe(steps=1_700, batch=64, rate=2e-3, warmup=50, average=0.99)
DECODER = Recipe(steps=1_200, batch=64, rate=1e-3, warmup=50, average=0.995, seed=1)
STICKERS_IN_BATCH = 24  # of the decoder's
NOISE = 0.05  # of the latents' deviation; the decoder learns to bear what a sampler leaves


def build() -> AutoencoderDC:
    return AutoencoderDC(
        latent_channels=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(16, 32, 64, 128),
        decoder_block_out_channels=(16, 32, 64, 128),
        encoder_layers_per_block=(0, 1, 1, 3),
        decoder_layers_per_block=(0, 1, 1, 4),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        upsample_block_type="pixel_shuffle",
        downsample_block_type="pixel_unshuffle",
        scaling_factor=1.0,
    )


class Reconstruction(nn.Module):
    """The loss: squared and absolute error, and latents of mean 0 and deviation 1, so that no scale is needed."""

    def __init__(self, autoencoder: AutoencoderDC) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        pixels = pictures * 2 - 1
        latents = self.autoencoder.encode(pixels).latent
        noise = torch.randn(latents.shape, generator=generator)
        decoded = self.autoencoder.decode(latents + NOISE * noise).sample
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        unit = (mean**2).mean() + ((deviation - 1) ** 2).mean()
        return difference(decoded, pixels) + 0.02 * unit


def difference(decoded: Tensor, pixels: Tensor) -> Tensor:
    return F.mse_loss(decoded, pixels) + 0.1 * F.l1_loss(decoded, pixels)


def train(places: Places) -> None:
    torch.manual_seed(0)
    data, model = training_pictures(places.work), build()
    loss = Reconstruction(model)
    fit(
        "autoencoder",
        model,
        lambda generator: loss(data.some(RECIPE.batch, generator)[1], generator),
        RECIPE,
        places.work,
    )
    sharpen(model, places)
    model.save_config(places.base / "vae")
    write_weights(places.base / "vae" / "diffusion_pytorch_model.safetensors", model)


def sharpen(model: AutoencoderDC, places: Places) -> None:
    """The decoder alone, on both looks; the encoder is left as it is."""
    plain, other = training_pictures(places.work), stickers(places.work)

    def loss(generator: torch.Generator) -> Tensor:
        parts = plain.some(DECODER.batch - STICKERS_IN_BATCH, generator)[1], other.some(STICKERS_IN_BATCH, generator)[1]
        pixels = torch.cat(parts) * 2 - 1
        with torch.no_grad():
            latents = model.encode(pixels).latent
        noise = torch.randn(latents.shape, generator=generator)
        return difference(model.decode(latents + NOISE * noise).sample, pixels)

    model.decoder.requires_grad_(True)
    fit("decoder", model, loss, DECODER, places.work)


def load(places: Places) -> AutoencoderDC:
    return AutoencoderDC.from_pretrained(places.base / "vae", local_files_only=True).requires_grad_(False)


@torch.no_grad()
def encode(autoencoder: AutoencoderDC, pictures: Tensor) -> Tensor:
    """Pictures [N, 3, 64, 64] of 0..1 to latents [N, 4, 8, 8]."""
    return torch.cat([autoencoder.encode(part * 2 - 1).latent for part in pictures.split(256)])


@torch.no_grad()
def decode(autoencoder: AutoencoderDC, latents: Tensor) -> Tensor:
    return torch.cat([autoencoder.decode(part).sample for part in latents.split(256)]).clamp(-1, 1) / 2 + 0.5


def report(places: Places) -> dict[str, object]:
    """Signal to noise on held-out combinations, of both looks, and the latents' mean and deviation."""
    model, result = load(places), {}
    for look in ("plain", "stickers"):
        pictures = references(512, DEVELOP, as_sticker=look == "stickers")
        original = pictures.of(torch.arange(len(pictures)))
        latents = encode(model, original)
        decoded = decode(model, latents)
        save_rows(places.sheets / f"autoencoder_{look}.png", interleaved(original[:32], decoded[:32], 16))
        error = F.mse_loss(decoded, original)
        result[look] = {
            "pictures": len(pictures),
            "psnr_db": round(float(-10 * torch.log10(error)), 2),
            "latent_mean": round(float(latents.mean()), 3),
            "latent_std": round(float(latents.std()), 3),
        }
    return result
