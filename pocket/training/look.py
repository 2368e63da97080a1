"""Stage 8, another look: the base fine-tuned on stickers (a white rim, a dark line), kept as a LoRA.

All weight matrices are trained. The LoRA is their change's best approximation of low rank, with the names of the
kohya scripts, which ComfyUI's own LoRA node and diffusers load.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from ..places import Places
from ..world.scenes import BACKGROUND, COLOUR, DEVELOP, SHAPE, caption, random_scenes
from ..world.settings import GUIDANCE
from . import autoencoder, base
from .data import stickers
from .fitting import Recipe, fit, write_tensors
from .judge import load as load_judge
from .sampling import Denoiser, sample
from .sheets import save_rows

RECIPE = Recipe(steps=700, batch=64, rate=5e-4, betas=(0.9, 0.99), warmup=50, average=0.99)
RANK = 16
PREFIX = "lora_unet_"


def matrices(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The weights of linear layers and convolutions, by name; the time embedding and the ends stay as they are."""
    ends = ("conv_in", "conv_out", "time_embedding")
    return {
        name.removesuffix(".weight"): weight
        for name, weight in unet.named_parameters()
        if weight.ndim > 1 and not name.startswith(ends)
    }


def train(places: Places) -> None:
    data, unet, noising = stickers(places.work), base.load(places), base.Noising()
    latents, texts = base.latents_of(places, data, "stickers"), base.texts_of(places, data)
    for weight in matrices(unet).values():
        weight.requires_grad_(True)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (RECIPE.batch,), generator=generator)
        noisy, timesteps, noise = noising(latents[rows], generator)
        return F.mse_loss(unet(noisy, timesteps, texts.drawn(rows, generator)).sample, noise)

    fit("look", unet, loss, RECIPE, places.work)
    torch.save(unet.state_dict(), places.work / "look_whole.pt")
    write_lora(places, unet)


def write_lora(places: Places, tuned: UNet2DConditionModel) -> None:
    """The change of every matrix, cut to RANK by its singular values."""
    before, tensors = matrices(base.load(places)), {}
    for name, weight in matrices(tuned).items():
        change = (weight - before[name]).float()
        u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
        root = s[:RANK].sqrt()
        key = PREFIX + name.replace(".", "_")
        down, up = root[:, None] * v[:RANK], u[:, :RANK] * root
        tensors[f"{key}.lora_down.weight"] = down.view(-1, *weight.shape[1:]).half().contiguous()
        tensors[f"{key}.lora_up.weight"] = up.view(*up.shape, *[1] * (weight.ndim - 2)).half().contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(float(len(down)))
    write_tensors(places.look, tensors, {"format": "pt", "base_model": "pocket", "licence": "Apache-2.0"})


@torch.no_grad()
def load(places: Places, strength: float = 1.0) -> UNet2DConditionModel:
    """The base with the LoRA merged in."""
    unet, lora = base.load(places), load_file(places.look)
    for name, weight in matrices(unet).items():
        key = PREFIX + name.replace(".", "_")
        up, down = (lora[f"{key}.lora_{part}.weight"].float().flatten(1) for part in ("up", "down"))
        weight += strength * (up @ down).view_as(weight)
    return unet


@torch.no_grad()
def report(places: Places, count: int = 128) -> dict[str, object]:
    """Text alone on the fine-tuned base, whole and as a LoRA: what the text names, and whether they are stickers."""
    scenes = random_scenes(count, torch.Generator().manual_seed(DEVELOP))
    states = base.text_states(places, [caption(scene, True, True) for scene in scenes])
    empty, judge = base.text_states(places, [""]), load_judge(places)
    result: dict[str, object] = {"pictures": count, "rank": RANK}
    looks = {"lora": load(places)}
    whole = places.work / "look_whole.pt"
    if whole.exists():
        looks["whole"] = base.load(places)
        looks["whole"].load_state_dict(torch.load(whole, weights_only=True))
    for name, unet in looks.items():
        made = autoencoder.decode(
            autoencoder.load(places), sample(Denoiser(unet, states, empty), count, guidance=GUIDANCE)
        )
        save_rows(places.sheets / f"look_{name}.png", list(made[:64].split(16)))
        found = judge.verdict(made)
        right = {word: round(float((found.attributes[:, one] == scenes[:, one]).float().mean()), 4)
                 for word, one in (("shape", SHAPE), ("colour", COLOUR), ("background", BACKGROUND))}  # fmt: skip
        result[name] = right | {"stickers": round(float(found.is_sticker.float().mean()), 4)}
    return result
