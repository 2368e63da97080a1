"""Stage 7, a ControlNet for silhouettes: a stock ControlNetModel, started from the base and trained beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from ..places import Places
from ..world.drawing import chance, silhouettes
from ..world.scenes import COLOUR, DEVELOP, SHAPE, caption, random_scenes
from ..world.settings import GUIDANCE
from . import autoencoder, base
from .data import Pictures, training_pictures
from .fitting import Recipe, fit, write_weights
from .judge import load as load_judge
from .sampling import Predict, sample
from .sheets import interleaved, save_rows

Condition = Callable[[Tensor, torch.Generator], Tensor]
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


def fit_control(name: str, folder: Path, places: Places, data: Pictures, condition: Condition, recipe: Recipe,
                no_text: float, device: str = "cpu") -> None:  # fmt: skip
    """Train a ControlNet beside the base and write it to `folder`.

    condition: from rows of the data and a generator to conditions [B, 3, 64, 64] of 0..1, on the device. no_text: the
    share of captions that are empty.
    """
    unet, noising = base.load(places), base.Noising(device)
    control = build(unet).to(device)
    unet.to(device)
    latents = base.latents_of(places, data, "training", device).to(device)
    texts = base.texts_of(places, data).to(device)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (recipe.batch,), generator=generator, device=generator.device)
        noisy, timesteps, noise = noising(latents[rows], generator)
        given = condition(rows, generator)
        text = texts.drawn(rows, generator, no_text)
        return F.mse_loss(controlled(unet, control, noisy, timesteps, text, given), noise)

    fit(name, control, loss, recipe, places.work)
    control.save_config(folder)
    write_weights(folder / "diffusion_pytorch_model.safetensors", control)


def load_control(folder: Path) -> ControlNetModel:
    return ControlNetModel.from_pretrained(folder, local_files_only=True).requires_grad_(False)


def guided(unet: UNet2DConditionModel, control: ControlNetModel, states: Tensor, condition: Tensor) -> Predict:
    """What the base predicts without and with what is wanted; the ControlNet acts on the latter alone.

    states: [2 B, ...] of both sides' texts. condition: [B, 3, 64, 64] of 0..1.
    """

    def predict(latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([latents, latents])
        without, wanted = controlled(unet, control, both, timestep, states, condition).chunk(2)
        return without, wanted

    return predict


def train(places: Places) -> None:
    data = training_pictures(places.work)

    def condition(rows: Tensor, generator: torch.Generator) -> Tensor:
        return silhouettes(data.scenes[rows], data.given.of(rows))

    fit_control("controlnet", places.controlnet, places, data, condition, RECIPE, NO_TEXT)


def load(places: Places) -> ControlNetModel:
    return load_control(places.controlnet)


@torch.no_grad()
def report(places: Places, count: int = 128) -> dict[str, object]:
    """A silhouette and a colour in words: the share of pictures with the silhouette's shape and the text's colour."""
    generator = torch.Generator().manual_seed(DEVELOP)
    scenes = random_scenes(count, generator)
    condition = silhouettes(scenes, chance(count, generator))
    words = [caption(scene, True, False) for scene in scenes]
    states = torch.cat([base.text_states(places, [""]).expand(count, -1, -1), base.text_states(places, words)])
    predict = guided(base.load(places), load(places), states, condition)
    pictures = autoencoder.decode(autoencoder.load(places), sample(predict, count, guidance=GUIDANCE))
    save_rows(places.sheets / "controlnet.png", interleaved(condition[:64], pictures[:64], 16))
    found = load_judge(places).verdict(pictures).attributes
    right = {name: round(float((found[:, one] == scenes[:, one]).float().mean()), 4)
             for name, one in (("shape", SHAPE), ("colour", COLOUR))}  # fmt: skip
    return {"pictures": count, "right": right}
