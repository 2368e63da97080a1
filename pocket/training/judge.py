"""Stage 3, the judge: the ruler of all figures. It tells the attributes of a picture, or that one cannot be told.

It learns from all combinations, as drawn and as the autoencoder gives them back, in both looks. Blurred, mixed and
half-formed pictures teach it the class "none" of each attribute.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from ..places import Places
from ..world.drawing import SHIFT, chance, draw
from ..world.scenes import ATTRIBUTES, COUNTS, DEVELOP, random_scenes
from . import autoencoder
from .data import to_bytes
from .fitting import Recipe, fit, write_weights
from .sheets import save_rows
from .spoiled import spoil

RECIPE = Recipe(steps=4_500, batch=128, rate=2e-3, warmup=50, average=0.995)
SURE = 0.8  # a picture counts where the judge is as sure as this
PLAIN, STICKERS, SPOILED = 12_000, 6_000, 8_000


@dataclass(frozen=True)
class Verdict:
    """attributes [N, 5]: the class, -1 where none is sure. is_sticker [N]. position [N, 2]: shift in pixels."""

    attributes: Tensor
    is_sticker: Tensor
    position: Tensor


class Judge(nn.Module):
    """Convolutions and one linear head each: attributes with "none", look, position."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 32, 2), (32, 64, 2), (64, 96, 2), (96, 128, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 192), nn.SiLU())
        self.attributes = nn.ModuleList(nn.Linear(192, count + 1) for count in COUNTS)
        self.look, self.position = nn.Linear(192, 2), nn.Linear(192, 2)

    def forward(self, pictures: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Pictures [N, 3, 64, 64] of 0..1 to the logits of each attribute, of the look, and the shift / SHIFT."""
        features = self.trunk(pictures * 2 - 1)
        return [head(features) for head in self.attributes], self.look(features), self.position(features)

    @torch.no_grad()
    def verdict(self, pictures: Tensor) -> Verdict:
        found: list[list[Tensor]] = [[], [], []]
        for part in pictures.split(256):
            attributes, look, position = self(part)
            sure = [logits.softmax(1).max(1) for logits in attributes]
            classes = [
                torch.where((one.values > SURE) & (one.indices < count), one.indices, -1)
                for one, count in zip(sure, COUNTS)
            ]
            found[0].append(torch.stack(classes, 1))
            found[1].append(look.argmax(1) == 1)
            found[2].append(position * SHIFT)
        return Verdict(*(torch.cat(parts) for parts in found))


@dataclass(frozen=True)
class Lessons:
    """pictures [N, 3, 64, 64] as 8 bits; labels [N, 5], the count of an attribute's classes for "none"; looks [N];
    positions [N, 2] in units of SHIFT, NaN where there is none."""

    pictures: Tensor
    labels: Tensor
    looks: Tensor
    positions: Tensor


def lessons(places: Places, seed: int, plain: int, stickers: int, spoiled: int) -> Lessons:
    """Drawn pictures, and the same as the autoencoder gives them back."""
    generator = torch.Generator().manual_seed(seed)
    pictures, labels, looks, positions = [], [], [], []
    for count, is_sticker in ((plain, False), (stickers, True)):
        scenes, given = random_scenes(count, generator), chance(count, generator)
        pictures.append(to_bytes(draw(scenes, given, is_sticker)))
        labels.append(scenes)
        looks.append(torch.full((count,), int(is_sticker)))
        positions.append(given.shift / SHIFT)
    if spoiled:
        found, wrong, is_sticker = spoil(spoiled, generator)
        pictures.append(to_bytes(found))
        labels.append(wrong)
        looks.append(is_sticker.long())
        positions.append(torch.full((spoiled, 2), float("nan")))
    drawn = torch.cat(pictures)
    model = autoencoder.load(places)
    again = torch.cat(
        [
            to_bytes(autoencoder.decode(model, autoencoder.encode(model, part.float() / 255)))
            for part in drawn.split(512)
        ]
    )
    twice = [torch.cat([torch.cat(parts)] * 2) for parts in (labels, looks, positions)]
    return Lessons(torch.cat([drawn, again]), *twice)


def loss(judge: Judge, data: Lessons, generator: torch.Generator) -> Tensor:
    rows = torch.randint(len(data.pictures), (RECIPE.batch,), generator=generator)
    pictures = data.pictures[rows].float() / 255
    softness = float(torch.rand(1, generator=generator))
    if softness > 0.5:  # a sampler's pictures are a little soft
        pictures = gaussian_blur(pictures, [5, 5], [softness])
    gain = 1 + 0.06 * (torch.rand(len(rows), 3, 1, 1, generator=generator) * 2 - 1)
    noise = 0.02 * torch.randn(pictures.shape, generator=generator)
    attributes, look, position = judge((pictures * gain + noise).clamp(0, 1))
    labels, where = data.labels[rows], data.positions[rows]
    told = [F.cross_entropy(logits, labels[:, place]) for place, logits in enumerate(attributes)]
    there = where.isfinite().all(1)
    return (
        torch.stack(told).sum()
        + F.cross_entropy(look, data.looks[rows])
        + 3 * F.smooth_l1_loss(position[there], where[there], beta=0.1)
    )


def train(places: Places) -> None:
    torch.manual_seed(0)
    data, judge = lessons(places, 11, PLAIN, STICKERS, SPOILED), Judge()
    fit("judge", judge, lambda generator: loss(judge, data, generator), RECIPE, places.work)
    write_weights(places.judge, judge)


def load(places: Places) -> Judge:
    judge = Judge()
    judge.load_state_dict({key: value.float() for key, value in load_file(places.judge).items()})
    return judge.eval().requires_grad_(False)


def report(places: Places) -> dict[str, object]:
    """Of pictures never seen: the share right of each attribute, drawn and autoencoded; of spoiled ones: "none"."""
    judge = load(places)
    data = lessons(places, DEVELOP, 1_024, 512, 0)
    half = len(data.pictures) // 2
    result: dict[str, object] = {"pictures": half}
    for name, mine in (("drawn", slice(0, half)), ("autoencoded", slice(half, None))):
        found = judge.verdict(data.pictures[mine].float() / 255)
        right = (found.attributes == data.labels[mine]).float().mean(0)
        result[name] = {attribute: round(float(share), 4) for attribute, share in zip(ATTRIBUTES, right)}
        off = (found.position - data.positions[mine] * SHIFT).norm(dim=1)
        result[f"{name}, look"] = round(float((found.is_sticker == (data.looks[mine] == 1)).float().mean()), 4)
        result[f"{name}, position_px"] = round(float(off.mean()), 2)
    pictures, labels, _ = spoil(512, torch.Generator().manual_seed(DEVELOP))
    is_none = labels == torch.tensor(COUNTS)
    told = judge.verdict(pictures).attributes
    result["spoiled, told as none"] = {
        attribute: round(float((told[:, place] == -1)[is_none[:, place]].float().mean()), 4)
        for place, attribute in enumerate(ATTRIBUTES)
    }
    save_rows(places.sheets / "judge_spoiled.png", list(pictures[:64].split(16)))
    return result
