"""Stage 4, the image encoder: a stock CLIPVisionModelWithProjection of 128 x 4 layers on patches of 8 pixels.

It learns to tell the attributes from its embedding. On most of a batch the colour channels are permuted and inverted:
otherwise it learns that some colours never go with some shapes, and fails on just the combinations held out.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ipadapter_core.method.spec import Feature

from ..places import Places
from ..world.drawing import SIDE
from ..world.scenes import ATTRIBUTES, BACKGROUND, COLOUR, COUNTS, DEVELOP, SHAPE
from .data import references, training_pictures
from .fitting import Recipe, fit, write_weights

RECIPE = Recipe(steps=2_000, batch=128, rate=1.5e-3, warmup=100, decay=0.05, average=0.99)
WIDTH, EMBED = 128, 64
RECOLOURED = 0.75  # of a batch
SHIFT = 2  # pixels


def build() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=8,
            projection_dim=EMBED,
            hidden_act="gelu",
        )
    )


def normalised(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return (pictures - mean) / std


class Viewer(nn.Module):
    """The encoder with a linear head for each attribute on its embedding."""

    def __init__(self, encoder: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(EMBED, count) for count in COUNTS)

    def logits(self, pictures: Tensor) -> list[Tensor]:
        embeds = self.encoder(normalised(pictures)).image_embeds
        return [head(embeds) for head in self.heads]

    def loss(self, scenes: Tensor, pictures: Tensor, generator: torch.Generator) -> Tensor:
        recoloured = torch.arange(len(scenes)) < RECOLOURED * len(scenes)
        pictures = torch.cat([recolour(pictures[recoloured], generator), pictures[~recoloured]])
        losses = []
        for attribute, logits in enumerate(self.logits(shifted(pictures, generator))):
            counts = ~recoloured if attribute in (COLOUR, BACKGROUND) else torch.ones_like(recoloured)
            loss = F.cross_entropy(logits[counts], scenes[counts, attribute])
            losses.append(3 * loss if attribute == SHAPE else loss)
        return torch.stack(losses).sum()


def recolour(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture with its channels in another order, each channel inverted or not."""
    count = len(pictures)
    order = torch.rand(count, 3, generator=generator).argsort(1)
    pictures = pictures.gather(1, order[:, :, None, None].expand_as(pictures))
    inverted = torch.rand(count, 3, 1, 1, generator=generator) < 0.5
    return torch.where(inverted, 1 - pictures, pictures)


def shifted(pictures: Tensor, generator: torch.Generator) -> Tensor:
    x, y = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
    padded = F.pad(pictures, [SHIFT] * 4, mode="replicate")
    return padded[:, :, SHIFT + y : SHIFT + y + SIDE, SHIFT + x : SHIFT + x + SIDE]


def train(places: Places) -> None:
    torch.manual_seed(0)
    data, viewer = training_pictures(places.work), Viewer(build())
    fit(
        "image_encoder",
        viewer,
        lambda generator: viewer.loss(*data.some(RECIPE.batch, generator), generator),
        RECIPE,
        places.work,
    )
    viewer.encoder.config.architectures = ["CLIPVisionModelWithProjection"]
    viewer.encoder.config.save_pretrained(places.encoder)
    normal = {"image_mean": list(OPENAI_DATASET_MEAN), "image_std": list(OPENAI_DATASET_STD)}
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    words = {"image_processor_type": "CLIPImageProcessor", **normal, **sizes}
    (places.encoder / "preprocessor_config.json").write_text(json.dumps(words, indent=2) + "\n")
    torch.save(viewer.heads.state_dict(), places.work / "image_encoder_heads.pt")
    write_weights(places.encoder / "model.safetensors", viewer.encoder, {"format": "pt"})


def load(places: Places) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection.from_pretrained(places.encoder, dtype=torch.float32).requires_grad_(False)


@torch.no_grad()
def features(encoder: CLIPVisionModelWithProjection, pixels: Tensor, feature: Feature) -> Tensor:
    """Normalised pixels [N, 3, 64, 64] to the pooled embedding [N, 64], or the penultimate states [N, 65, 128]."""
    output = encoder(pixels, output_hidden_states=True)
    return output.image_embeds if feature == "pooled" else output.hidden_states[-2]


@torch.no_grad()
def report(places: Places) -> dict[str, object]:
    """On combinations held out: attributes by the training's heads, where those are still there."""
    viewer, pictures = Viewer(load(places)).eval(), references(1_024, DEVELOP)
    heads = places.work / "image_encoder_heads.pt"
    if not heads.exists():
        return {}
    viewer.heads.load_state_dict(torch.load(heads, weights_only=True))
    rows = torch.arange(len(pictures))
    logits = [viewer.logits(pictures.of(part)) for part in rows.split(256)]
    right = [
        torch.cat([part[place] for part in logits]).argmax(1) == pictures.scenes[:, place]
        for place in range(len(COUNTS))
    ]
    return {
        "pictures": len(pictures),
        "right": {name: round(float(one.float().mean()), 4) for name, one in zip(ATTRIBUTES, right)},
    }
