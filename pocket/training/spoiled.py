"""Pictures of which some attribute cannot be told: they teach the judge to say so."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ..world.drawing import SIDE, chance, distances, draw, paint, radii
from ..world.scenes import BACKGROUND, BACKGROUNDS, COLOUR, COLOURS, COUNTS, PATTERN, SHAPE, SIZE, random_scenes

FAR = 0.27  # of a colour from its nearest in the palette (0..1 each channel), from where on it has no name
NONE = torch.tensor(COUNTS)


def spoil(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [N, 3, 64, 64], labels [N, 5] with the number of an attribute's classes for "none", is_sticker [N]."""
    kinds = (morphed, blurred, faded, discoloured, blobs)
    sizes = [count // len(kinds)] * len(kinds)
    sizes[0] += count - sum(sizes)
    pictures, labels, looks = [], [], []
    for kind, size in zip(kinds, sizes):
        is_sticker = bool(torch.rand(1, generator=generator) < 0.3)
        found, told = kind(size, generator, is_sticker)
        pictures.append(found)
        labels.append(told)
        looks.append(torch.full((size,), is_sticker))
    order = torch.randperm(count, generator=generator)
    return torch.cat(pictures)[order].clamp(0, 1), torch.cat(labels)[order], torch.cat(looks)[order]


def morphed(count: int, generator: torch.Generator, is_sticker: bool) -> tuple[Tensor, Tensor]:
    """Halfway between two shapes."""
    scenes, given = random_scenes(count, generator), chance(count, generator)
    other = (scenes[:, SHAPE] + torch.randint(1, COUNTS[SHAPE], (count,), generator=generator)) % COUNTS[SHAPE]
    size, share = radii(scenes, given), 0.4 + 0.2 * torch.rand(count, 1, 1, generator=generator)
    between = distances(scenes[:, SHAPE], size, given) * share + distances(other, size, given) * (1 - share)
    return paint(scenes, between, given, is_sticker), without(scenes, SHAPE)


def blurred(count: int, generator: torch.Generator, is_sticker: bool) -> tuple[Tensor, Tensor]:
    """So soft that shape, size and pattern are gone."""
    scenes = random_scenes(count, generator)
    pictures = draw(scenes, chance(count, generator), is_sticker)
    sigmas = (5.0, 6.0, 7.0)
    parts = enumerate(pictures.split(64))
    soft = torch.cat([gaussian_blur(part, [31, 31], [sigmas[number % 3]]) for number, part in parts])
    return soft, without(scenes, SHAPE, SIZE, PATTERN)


def faded(count: int, generator: torch.Generator, is_sticker: bool) -> tuple[Tensor, Tensor]:
    """Half of one picture, half of another; what both share can still be told."""
    first, second = random_scenes(count, generator), random_scenes(count, generator)
    share = 0.42 + 0.16 * torch.rand(count, 1, 1, 1, generator=generator)
    pictures = draw(first, chance(count, generator), is_sticker) * share
    pictures = pictures + draw(second, chance(count, generator), is_sticker) * (1 - share)
    return pictures, torch.where(first == second, first, NONE)


def discoloured(count: int, generator: torch.Generator, is_sticker: bool) -> tuple[Tensor, Tensor]:
    """Colours that no palette has."""
    scenes, given = random_scenes(count, generator), chance(count, generator)
    tints, labels = given.tints.clone(), scenes.clone()
    for place, (attribute, named) in enumerate(((COLOUR, COLOURS), (BACKGROUND, BACKGROUNDS))):
        palette = torch.tensor(list(named.values())) / 255
        low = 0.0 if attribute == COLOUR else 0.45
        wild = low + (1 - low) * torch.rand(count, 3, generator=generator)
        is_far = torch.cdist(wild, palette).min(1).values > FAR
        mine = palette[scenes[:, attribute]]
        tints[:, place] = torch.where(is_far[:, None], wild - mine, tints[:, place])
        labels[:, attribute] = torch.where(is_far, NONE[attribute], labels[:, attribute])
    return draw(scenes, dataclasses.replace(given, tints=tints), is_sticker), labels


def blobs(count: int, generator: torch.Generator, is_sticker: bool) -> tuple[Tensor, Tensor]:
    """Something where a shape should be."""
    scenes, given = random_scenes(count, generator), chance(count, generator)
    coarse = torch.randn(count, 1, 8, 8, generator=generator)
    waves = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[:, 0]
    around = distances(torch.zeros(count, dtype=torch.long), radii(scenes, given), given)
    return paint(scenes, around + 7 * waves, given, is_sticker), without(scenes, SHAPE, SIZE)


def without(scenes: Tensor, *attributes: int) -> Tensor:
    labels = scenes.clone()
    for attribute in attributes:
        labels[:, attribute] = NONE[attribute]
    return labels
