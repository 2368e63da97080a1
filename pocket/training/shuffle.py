"""A rival of the adapters, apart from the others: a ControlNet that is shown a reference with its content shuffled.

The idea is ControlNet 1.1's "shuffle": a picture's content is moved about by a random smooth flow, and the ControlNet
learns to paint the picture as it was. So it knows of a reference what a shuffle leaves, colours and texture, and not
where anything is. The flow is ours: where a pixel comes from is smooth noise, stretched over the whole picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from torch import Tensor

from ..places import Places
from ..world.scenes import ATTRIBUTES, DEVELOP
from ..world.settings import GUIDANCE
from . import autoencoder, base
from .control import fit_control, guided, load_control
from .data import references, training_pictures
from .fitting import Recipe
from .judge import load as load_judge
from .sampling import STEPS, denoise
from .sheets import save_rows

RECIPE = Recipe(steps=1_200, batch=256, rate=1e-3, betas=(0.9, 0.99), warmup=50, average=0.995)
NO_TEXT = 0.5  # of the captions are empty: the shuffled picture has to tell what is in it
NODES = 3  # of the flow, across and down: about as coarse as the published flow; more of them leave less


def shuffled(pictures: Tensor, nodes: Tensor) -> Tensor:
    """Pictures [N, 3, S, S] whose pixels come from where a flow says: bicubic through uniform nodes [N, 2, K, K].

    Each of its two coordinates is stretched so that its least is one edge of the picture and its greatest the other.
    """
    flow = F.interpolate(nodes, size=pictures.shape[-2:], mode="bicubic", align_corners=True)
    least, greatest = flow.amin((2, 3), keepdim=True), flow.amax((2, 3), keepdim=True)
    places = 2 * (flow - least) / (greatest - least) - 1
    return F.grid_sample(pictures, places.permute(0, 2, 3, 1), padding_mode="border", align_corners=True)


def drawn_nodes(count: int, generator: torch.Generator) -> Tensor:
    """[N, 2, K, K] of 0..1."""
    return torch.rand(count, 2, NODES, NODES, generator=generator, device=generator.device)


def train(places: Places, device: str = "cpu") -> None:
    data = training_pictures(places.work)
    pictures = data.bytes.to(device)

    def condition(rows: Tensor, generator: torch.Generator) -> Tensor:
        return shuffled(pictures[rows].float() / 255, drawn_nodes(len(rows), generator))

    fit_control("shuffle", places.shuffle, places, data, condition, RECIPE, NO_TEXT, device)


def load(places: Places) -> ControlNetModel:
    return load_control(places.shuffle)


class Shuffler:
    """Pictures from shuffled references by an empty text. places: whose parts it loads, on a device."""

    def __init__(self, places: Places, device: str = "cpu") -> None:
        self.unet, self.control = base.load(places).to(device), load(places).to(device)
        self.decoder, self.empty = autoencoder.load(places).to(device), base.text_states(places, [""]).to(device)

    @torch.no_grad()
    def pictures(self, conditions: Tensor, noise: Tensor, guidance: float, steps: int) -> Tensor:
        """Shuffled references [N, 3, 64, 64] of 0..1 and noise [N, 4, 8, 8] to pictures [N, 3, 64, 64] of 0..1.

        The ControlNet acts on the side with the reference alone, so that guidance strengthens it as an image prompt.
        """
        states = self.empty.expand(2 * len(conditions), -1, -1)
        predict = guided(self.unet, self.control, states, conditions)
        return autoencoder.decode(self.decoder, denoise(predict, noise, guidance, steps))


@torch.no_grad()
def report(places: Places, device: str = "cpu", count: int = 256) -> dict[str, object]:
    """References of development: the share of pictures that have their attributes, at pocket's guidance and at 1.

    At 1 the side without the reference counts for nothing, as where the ControlNet acts on both sides of an empty text.
    """
    generator = torch.Generator().manual_seed(DEVELOP)
    data, model = references(count, DEVELOP), Shuffler(places, device)
    original = data.of(torch.arange(count))
    conditions = shuffled(original, drawn_nodes(count, generator))
    noise = torch.randn(count, 4, 8, 8, generator=generator).to(device)
    result: dict[str, object] = {"pictures": count}
    for guidance in (GUIDANCE, 1.0):
        made = model.pictures(conditions.to(device), noise, guidance, STEPS).cpu()
        right = load_judge(places).verdict(made).attributes == data.scenes
        result[f"guidance {guidance:g}"] = {
            name: round(float(share), 4) for name, share in zip(ATTRIBUTES, right.float().mean(0))
        }
        if guidance == GUIDANCE:
            rows = zip(original[:48].split(16), conditions[:48].split(16), made[:48].split(16))
            save_rows(places.sheets / "shuffle.png", [row for three in rows for row in three])
    return result
