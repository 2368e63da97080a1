"""A recorded run as a picture: where a reference acts, in which layers and when.

Shapes: B latents, h and w latent pixels, H and W pixels of a picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ipadapter_core import Site, module_numbers
from .record import Recording

SECTIONS = {"down": "down", "middle": "mid", "up": "up"}  # the user's word to a site's
RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")
SCALE = 8  # pixels of the heat map along a latent pixel
OPACITY = 0.8  # of the hottest place over a picture
# Dark to light, so that it reads in grey as well; evenly spaced over 0 to 1.
HEAT = ((0.0, 0.0, 0.05), (0.25, 0.05, 0.4), (0.65, 0.12, 0.4), (0.93, 0.4, 0.15), (1.0, 0.78, 0.25), (1.0, 1.0, 0.85))


@dataclass(frozen=True)
class AttentionMap:
    """Shares [B, h, w] of 0..1, and how many attention modules and predictions they are the mean of."""

    shares: Tensor
    num_modules: int
    num_predictions: int

    def __str__(self) -> str:
        low, mean, high = (float(value) for value in (self.shares.min(), self.shares.mean(), self.shares.max()))
        return (
            f"share of the reference {low:.2f} to {high:.2f}, mean {mean:.2f}; attention modules {self.num_modules}, "
            f"predictions {self.num_predictions}"
        )


def attention_map(
    recording: Recording, reference: int = 0, layers: str = "", start: float = 0.0, end: float = 1.0
) -> AttentionMap:
    """The mean share of a reference over the layers and predictions in which it acted, at the latents' size.

    reference: from 0 in the order of Apply. layers: "" for all, else numbers of attention modules in forward order,
    from 0, as in "3, 6-8", or down, middle, up. start, end: progress, 0 to 1.
    Raises ValueError where nothing of that kind was recorded.
    """
    if recording.refusal:
        raise ValueError(recording.refusal)
    count = recording.num_references
    if not count:
        raise ValueError("no image prompt is on the model that was recorded: add Apply IP-Adapter before or after it")
    if not 0 <= reference < count:
        raise ValueError(
            f"there is no reference {reference}: the model has {count}, the first is 0, the last {count - 1}"
        )
    chosen = layers_of(layers, recording.sites)
    weights = {
        step: seen for step, all_ in recording.steps.items() if (seen := sum(start <= one <= end for one in all_))
    }
    acted = {index for index, position, _ in recording.sums if position == reference}
    maps = []
    for index in sorted(acted & set(chosen)):
        steps = {step: weight for step, weight in weights.items() if (index, reference, step) in recording.sums}
        if steps:
            maps.append(_layer(recording, index, reference, steps))
    if not maps:
        raise ValueError(_nothing(recording, reference, acted, layers, start, end))
    numbers = module_numbers(recording.sites)
    shares = torch.stack([F.interpolate(one[:, None], recording.size, mode="area")[:, 0] for one in maps]).mean(0)
    return AttentionMap(shares, len({numbers[index] for index in acted & set(chosen)}), sum(weights.values()))


def layers_of(words: str, sites: Sequence[Site]) -> list[int]:
    """Checkpoint indices of sites named by numbers of attention modules or sections; all for no words.

    Raises ValueError for a word that names none.
    """
    numbers = module_numbers(sites)
    names = [name for name in re.split(r"[,;\n]", words.lower()) if name.strip()]
    if not names:
        return [site.index for site in sites]
    found: set[int] = set()
    for name in names:
        match = RANGE.fullmatch(name)
        span = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        section = SECTIONS.get(name.strip())
        named = [site.index for site in sites if numbers[site.index] in span or site.place[0] == section]
        if not named:
            raise ValueError(
                f"there are no layers {name.strip()!r}: write attention modules from 0 to {max(numbers.values())}, as "
                "in '3, 6-8', or down, middle, up, with commas between them; nothing for all"
            )
        found.update(named)
    return sorted(found)


def _layer(recording: Recording, index: int, reference: int, steps: dict[int, int]) -> Tensor:
    """The mean map of a layer [B, h, w] over steps, each with its weight; 0 where nothing was ever predicted."""
    found = [(recording.sums[index, reference, step], number) for step, number in steps.items()]
    means = sum((number * one.total / one.count.clamp(min=1e-6) for one, number in found), torch.zeros(()))
    weights = sum((number * (one.count > 0) for one, number in found), torch.zeros(()))
    return means / weights.clamp(min=1)


def _nothing(recording: Recording, reference: int, acted: set[int], layers: str, start: float, end: float) -> str:
    if not acted:
        return f"reference {reference} did not act in this run: its start and end leave every step out"
    numbers = module_numbers(recording.sites)
    where = ", ".join(map(str, sorted({numbers[index] for index in acted})))
    if not acted & set(layers_of(layers, recording.sites)):
        return f"reference {reference} does not act in the layers {layers!r}: it acts in {where}"
    return (
        f"reference {reference} acted in no prediction between {start:g} and {end:g} of the sampling: choose a wider "
        "range"
    )


def normalised(maps: Tensor) -> Tensor:
    """Each of the maps [B, h, w] stretched to 0..1; zeros where a map has one value everywhere."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def heat(values: Tensor) -> Tensor:
    """Values [B, H, W] of 0..1 to colours [B, H, W, 3], black over red to white."""
    colours = torch.tensor(HEAT)
    place = values.clamp(0, 1) * (len(HEAT) - 1)
    below = place.floor().long().clamp(max=len(HEAT) - 2)
    return torch.lerp(colours[below], colours[below + 1], (place - below)[..., None])


def shown(values: Tensor, picture: Tensor | None = None) -> Tensor:
    """A map [B, h, w] of 0..1 in colours: over a picture [B or 1, H, W, C] of its size, or alone at 8 times its own.

    Raises ValueError where there are other pictures than maps.
    """
    if picture is None:
        size = (SCALE * values.shape[-2], SCALE * values.shape[-1])
        return heat(_smooth(values, size))
    if len(picture) not in (1, len(values)):
        raise ValueError(f"there are {len(picture)} pictures for {len(values)} maps: connect the decoded latents")
    smooth = _smooth(values, (picture.shape[1], picture.shape[2]))
    return torch.lerp(
        picture[..., :3].float().cpu().expand(len(values), -1, -1, -1), heat(smooth), OPACITY * smooth[..., None]
    )


def _smooth(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values[:, None], size, mode="bilinear", align_corners=False)[:, 0]
