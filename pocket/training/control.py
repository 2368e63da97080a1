"""Stage 7, a ControlNet for silhouettes: a stock ControlNetModel, started from the base and trained beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from ..places import Places
from ..world.drawing import chance, silhouettes
from ..world.scenes import COLOUR, DEVELOP, SHAPE, caption, random_scenes
from ..world.settings import GUIDANCE
from . import autoencoder, base
from .data import training_pictures
from .fitting import Recipe, fit, write_weights
from .judge import load as load_judge
from .sampling import sample
from .sheets import interleaved, save_rows

RECIPE = Recipe(steps=900, batch=64, rate=1e-3, betas=(0.9, 0.99), warmup=50, average=0.995)
NO_TEXT = 0.5  # of the captions are empty, so that the silhouette has to tell the shape


def build(unet: UNet2DConditionModel) -> ControlNetModel:
    torch.manual_seed(0)
    return ControlNetModel.from_unet(unet)


def controlled(unet: UNet2DConditionModel, control: ControlNetModel, noisy: Tensor, timesteps: Tensor, text: Tensor,
               condition: Tensor, strength: float = 1.0) -> Tensor:  # fmt: skip
    """The noise that the base predicts [N, 4, 8, 8], the last B with a ControlNet on conditions [B, 3, 64, 64] of 0..1.

    N = B where all get it. In sampling only what is wanted does, so that guidance strengthens it as it does text and
    picture; this is what ComfyUI's Apply ControlNet does with the positive alone.
    """
    free, mine = len(noisy) - len(condition), slice(-len(condition), None)
    down, middle = control(noisy[mine], timesteps, text[mine], condition, strength, return_dict=False)
    *down, middle = (F.pad(residual, (0, 0, 0, 0, 0, 0, free, 0)) for residual in (*down, middle))
    return unet(
        noisy, timesteps, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample


def train(places: Places) -> None:
    data, unet, noising = training_pictures(places.work), base.load(places), base.Noising()
    latents, texts = base.latents_of(places, data, "training"), base.texts_of(places, data)
    control = build(unet)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (RECIPE.batch,), generator=generator)
        noisy, timesteps, noise = noising(latents[rows], generator)
        condition = silhouettes(data.scenes[rows], data.given.of(rows))
        text = texts.drawn(rows, generator, NO_TEXT)
        return F.mse_loss(controlled(unet, control, noisy, timesteps, text, condition), noise)

    fit("controlnet", control, loss, RECIPE, places.work)
    control.save_config(places.controlnet)
    write_weights(places.controlnet / "diffusion_pytorch_model.safetensors", control)


def load(places: Places) -> ControlNetModel:
    return ControlNetModel.from_pretrained(places.controlnet, local_files_only=True).requires_grad_(False)


@torch.no_grad()
def report(places: Places, count: int = 128) -> dict[str, object]:
    """A silhouette and a colour in words: the share of pictures with the silhouette's shape and the text's colour."""
    generator = torch.Generator().manual_seed(DEVELOP)
    scenes, unet, control = random_scenes(count, generator), base.load(places), load(places)
    condition = silhouettes(scenes, chance(count, generator))
    words = [caption(scene, True, False) for scene in scenes]
    states = torch.cat([base.text_states(places, [""]).expand(count, -1, -1), base.text_states(places, words)])

    def predict(latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([latents, latents])
        without, wanted = controlled(unet, control, both, timestep, states, condition).chunk(2)
        return without, wanted

    pictures = autoencoder.decode(autoencoder.load(places), sample(predict, count, guidance=GUIDANCE))
    save_rows(places.sheets / "controlnet.png", interleaved(condition[:64], pictures[:64], 16))
    found = load_judge(places).verdict(pictures).attributes
    right = {name: round(float((found[:, one] == scenes[:, one]).float().mean()), 4)
             for name, one in (("shape", SHAPE), ("colour", COLOUR))}  # fmt: skip
    return {"pictures": count, "right": right}
