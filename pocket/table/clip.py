"""Pocket's CLIP, the judge of its table: its image encoder as it is, and a text tower trained to name what that sees.

A caption's pictures are all of a batch that it is true of, so that "a star" is not held against other stars.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from ..places import Places
from ..training import vision
from ..training.data import Pictures, references
from ..training.fitting import Recipe, fit
from ..training.text import LENGTH, WIDTH
from ..world.scenes import ATTRIBUTES, BACKGROUND, COLOUR, COUNTS, SHAPE, caption

RECIPE = Recipe(steps=600, batch=256, rate=2e-3, warmup=30)
PICTURES, SEED = 8_000, 31
LONGEST = 12  # tokens of a caption, start and end included; what comes after its end changes nothing
SCALE = 20.0  # of cosines in the loss


class Namer(nn.Module):
    """The text tower and its projection, held to the embeddings [N, 64] of pictures that the encoder has given."""

    def __init__(self, places: Places, data: Pictures, embedded: Tensor) -> None:
        super().__init__()
        self.tokenizer = CLIPTokenizer.from_pretrained(places.base / "tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(places.base / "text_encoder", dtype=torch.float32)
        self.projection = nn.Linear(WIDTH, vision.EMBED, bias=False)
        self.scenes, self.embedded = data.scenes, embedded

    def loss(self, generator: torch.Generator) -> Tensor:
        """The share of a caption's likeness that falls on pictures which it is true of."""
        rows = torch.randint(len(self.scenes), (RECIPE.batch,), generator=generator)
        scenes, told = self.scenes[rows], torch.rand(RECIPE.batch, 2, generator=generator) < 0.5
        texts = [caption(scene, bool(has[0]), bool(has[1])) for scene, has in zip(scenes, told)]
        is_true = scenes[:, None, SHAPE] == scenes[None, :, SHAPE]
        for place, attribute in enumerate((COLOUR, BACKGROUND)):
            is_true &= (scenes[:, None, attribute] == scenes[None, :, attribute]) | ~told[:, place, None]
        alike = SCALE * F.normalize(self(texts), dim=-1) @ self.embedded[rows].T
        return (alike.logsumexp(1) - alike.masked_fill(~is_true, -torch.inf).logsumexp(1)).mean()

    def forward(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts, padding="max_length", max_length=LONGEST, return_tensors="pt").input_ids
        return self.projection(self.encoder(tokens).pooler_output)


@torch.no_grad()
def embed(places: Places, data: Pictures) -> Tensor:
    """Unit embeddings [N, 64]."""
    encoder, rows = vision.load(places), torch.arange(len(data))
    found = [encoder(vision.normalised(data.of(part))).image_embeds for part in rows.split(256)]
    return F.normalize(torch.cat(found), dim=-1)


def write_clip(places: Places, folder: Path) -> Path:
    """A transformers folder of the whole CLIP; trained when it is not there."""
    if (folder / "model.safetensors").exists():
        return folder
    torch.manual_seed(0)
    data = references(PICTURES, SEED, held_out=False)
    namer, encoder = Namer(places, data, embed(places, data)), vision.load(places)
    fit("table_clip", namer, namer.loss, RECIPE, folder.parent)
    config = CLIPConfig(
        text_config=namer.encoder.config.to_dict() | {"max_position_embeddings": LENGTH},
        vision_config=encoder.config.to_dict(), projection_dim=vision.EMBED,
    )  # fmt: skip
    model = CLIPModel(config)
    text = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in namer.encoder.state_dict().items()}
    weights = text | encoder.state_dict() | {"text_projection.weight": namer.projection.weight.detach()}
    model.load_state_dict(weights | {"logit_scale": model.logit_scale.detach()})
    folder.mkdir(parents=True, exist_ok=True)
    namer.tokenizer.save_pretrained(folder)
    shutil.copy(places.encoder / "preprocessor_config.json", folder)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def report(places: Places, folder: Path, seed: int) -> dict[str, float]:
    """Of pictures of held-out combinations: how often the true text is nearest, among those with another word in it."""
    data, model = references(256, seed), CLIPModel.from_pretrained(folder).eval()
    tokenizer, images, found = CLIPTokenizer.from_pretrained(folder), embed(places, data), {}
    for attribute in (SHAPE, COLOUR, BACKGROUND):
        scenes = data.scenes[:, None].repeat(1, COUNTS[attribute], 1)
        scenes[:, :, attribute] = torch.arange(COUNTS[attribute])
        texts = [caption(scene, True, True) for scene in scenes.flatten(0, 1)]
        tokens = tokenizer(texts, padding="max_length", max_length=LONGEST, return_tensors="pt").input_ids
        named = F.normalize(model.text_projection(model.text_model(input_ids=tokens).pooler_output), dim=-1)
        alike = (named.view(len(data), COUNTS[attribute], -1) * images[:, None]).sum(-1)
        right = alike.argmax(1) == data.scenes[:, attribute]
        found[tuple(ATTRIBUTES)[attribute]] = round(float(right.float().mean()), 4)
    return found
