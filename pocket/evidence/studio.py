"""Makes the pictures of an order, in diffusers with the trainer's attention, and keeps them in the work folder.

Shapes: N pictures of an order, B of a part of it, T image tokens, D width of a layer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

import ipadapter_core
from ipadapter_core import Feature, Given, ImageKV, IPAdapter, WeightsFile, nothing, read_adapter
from ipadapter_core.files.whole import whole
from trainer.base.encoder import ImageEncoder
from trainer.base.frozen import Frozen
from trainer.base.processor import install
from trainer.settings.config import ModelConfig
from trainer.step.adapter import is_appended, load_adapter

from ..places import Places
from ..training import control, look
from ..training.autoencoder import decode
from ..training.data import to_bytes
from ..training.judge import Judge, Verdict
from ..training.judge import load as load_judge
from ..training.sampling import Predict, sample
from ..world.drawing import draw
from ..world.scenes import random_scenes
from .controlled import Steps, sides, steps
from .orders import Order, World, build_world

PART = 64  # pictures at a time
# What shapes a picture beside the weights: where the file of one of these is edited, pictures are made anew.
SHAPING = (
    draw, random_scenes, build_world, to_bytes, decode, sample, control, look, steps,
    Frozen, ImageEncoder, install, load_adapter,
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """The pictures [N, 3, 64, 64] of an order, what the judge sees in them, and the references' scenes [N, 5]."""

    order: Order
    pictures: Tensor
    verdict: Verdict
    scenes: Tensor

    @property
    def right(self) -> Tensor:
        """Where attributes are the reference's, [N, 5]."""
        return self.verdict.attributes == self.scenes

    def first(self, count: int) -> Made:
        """Those of the first references."""
        found = [getattr(self.verdict, field.name)[:count] for field in dataclasses.fields(Verdict)]
        return Made(self.order, self.pictures[:count], Verdict(*found), self.scenes[:count])


class HasWorlds(Protocol):
    """What measures need of a studio."""

    world: Callable[[int], World]


class Studio:
    """Pocket's parts, each loaded once. Pictures are made anew when weights have changed that they depend on."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.folder = places.work / "evidence" / "made"
        self.frozen = Frozen(ModelConfig(base=str(places.base), encoder=str(places.encoder)))
        self.adapter, self.world = cache(self._adapter), cache(build_world)
        self.features, self.states = cache(self._features), cache(self._states)

    @cached_property
    def judge(self) -> Judge:
        return load_judge(self.places)

    @cached_property
    def stickers(self) -> UNet2DConditionModel:
        return look.load(self.places)

    @cached_property
    def controlnet(self) -> torch.nn.Module:
        return control.load(self.places)

    def path(self, order: Order) -> Path:
        """Where an order's pictures are kept: by its values, and the weights and sources that it needs."""
        folders = [*sources(), self.places.base, self.places.encoder]
        folders += [self.places.adapter(order.adapter)] if order.adapter else []
        folders += [self.places.controlnet] if order.has_silhouette else []
        folders += [self.places.look] if order.is_sticker else []
        words = json.dumps([dataclasses.asdict(order), [_digest(folder) for folder in folders]])
        return self.folder / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.pt"

    def make(self, order: Order) -> Iterator[int]:
        """Make the pictures of an order; yields the number done after each part. Kept only when all are there."""
        parts = []
        for rows in torch.arange(order.count).split(PART):
            latents = sample(
                self.predict(order, rows), len(rows), order.guidance, order.seed + int(rows[0]), order.steps
            )
            parts.append(to_bytes(decode(self.frozen.base.vae, latents)))
            yield len(rows)
        path = self.path(order)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            torch.save(torch.cat(parts), part)

    def made(self, order: Order) -> Made:
        """An order's pictures, made now if they are not there, and the judge's verdict."""
        if not self.path(order).exists():
            for _ in self.make(order):
                pass
        pictures = torch.load(self.path(order), weights_only=True).float() / 255
        scenes = self.world(order.world).references.scenes[: order.count]
        return Made(order, pictures, self.judge.verdict(pictures), scenes)

    def references(self, world: int, count: int) -> Tensor:
        """The first references, [N, 3, 64, 64] of 0..1."""
        return self.world(world).references.of(torch.arange(count))

    @torch.no_grad()
    def predict(self, order: Order, rows: Tensor) -> Predict:
        """A denoiser for some of an order's pictures: without text and picture, and with them."""
        unet, world = self.stickers if order.is_sticker else self.frozen.base.unet, self.world(order.world)
        texts = [world.text(number) if order.names_shape else "" for number in rows.tolist()]
        empty = self.states("").expand(len(rows), -1, -1)
        is_free = not (order.adapter or order.names_shape or order.has_silhouette)
        states = empty if is_free else torch.cat([empty, *map(self.states, texts)])
        kind = "appended" if order.adapter and is_appended(self.file(order.adapter).tensors) else "decoupled"
        mailbox, of_step = install(unet, kind), self._steps(order, rows, unet)
        condition = world.silhouettes(rows) if order.has_silhouette else None

        def predict(latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
            times = len(states) // len(latents)
            noisy = latents.repeat(times, 1, 1, 1)
            mailbox.of_layer = of_step(timestep)
            if condition is None:
                output = unet(noisy, timestep, states).sample
            else:
                output = control.controlled(unet, self.controlnet, noisy, timestep, states, condition)
            return output[: len(latents)], output[-len(latents) :]  # the same one where nothing is asked for

        return predict

    def _steps(self, order: Order, rows: Tensor, unet: UNet2DConditionModel) -> Steps:
        """What the layers get of the order's pictures at a timestep."""
        if order.prompts:
            return steps(self, order, rows, unet)
        kept = self._prompts(order, rows, unet) if order.adapter else {}
        return lambda _: kept

    def _prompts(self, order: Order, rows: Tensor, unet: UNet2DConditionModel) -> dict[int, tuple[ImageKV, ...]]:
        """K' and V' [2B, T, D] of each layer that gets the picture; no picture in the first half of the batch."""
        adapter = self.adapter(order.adapter)
        features = self.features(order.world, adapter.spec.feature)
        sources = [rows, self.world(order.world).partners[order.halves][rows]] if order.halves else [rows]
        masks = half_masks(unet) if order.halves else {}
        found: dict[int, tuple[ImageKV, ...]] = {}
        for place, source in enumerate(sources):
            given = Given(features[source])
            empty = nothing(adapter.spec, given, self.frozen.zero_states).expanded(given.rows)
            tokens = adapter.image_tokens(empty.joined(given))
            for index, (k, v) in adapter.keys_values(tokens, layers_of(unet, order.groups)).items():
                mask = masks[index][place] if masks else None
                found[index] = (*found.get(index, ()), ImageKV(k, v * order.weight, mask))
        return found

    def file(self, name: str) -> WeightsFile:
        """An adapter's file."""
        return read_adapter(self.places.adapter(name))

    def _adapter(self, name: str) -> IPAdapter:
        return load_adapter(self.file(name).tensors, self.frozen.base.sites)

    @torch.no_grad()
    def _features(self, world: int, feature: Feature) -> Tensor:
        return self.encoded(self.world(world).references.of(torch.arange(len(self.world(world).references))), feature)

    @torch.no_grad()
    def encoded(self, pictures: Tensor, feature: Feature = "pooled") -> Tensor:
        """Pictures [N, 3, 64, 64] of 0..1 to features, as the trainer reads picture files."""
        values = to_bytes(pictures).permute(0, 2, 3, 1).numpy()
        files = [Image.fromarray(value) for value in values]
        parts = [self.frozen.image_features(files[start : start + 256], feature) for start in range(0, len(files), 256)]
        return torch.cat(parts)

    def _states(self, text: str) -> Tensor:
        return self.frozen.base.encode_texts([text])["states"]


def layers_of(unet: UNet2DConditionModel, groups: Sequence[str]) -> list[int]:
    """The checkpoint indices of the layers in some of GROUPS."""
    words = {"down": "down", "mid": "middle", "up": "up"}
    return [site.index for site, side in sides(unet).items() if f"{words[site.place[0]]}, {side} x {side}" in groups]


def half_masks(unet: UNet2DConditionModel) -> dict[int, tuple[Tensor, Tensor]]:
    """Where the upper and the lower half of the latents are in each layer, [1, positions, 1], by checkpoint index."""
    masks = {}
    for layer, side in sides(unet).items():
        upper = (torch.arange(side) < side // 2).float()[:, None].expand(side, side).reshape(1, -1, 1)
        masks[layer.index] = (upper, 1 - upper)
    return masks


def sources() -> list[Path]:
    """The files whose code shapes a picture."""
    files = {Path(inspect.getfile(inspect.unwrap(thing))) for thing in SHAPING}
    return [*sorted(files), Path(__file__), Path(ipadapter_core.__file__).parent]


@cache
def _digest(path: Path) -> str:
    """Of a file's bytes, or of a folder's files."""
    if not path.exists():
        raise ValueError(f"there is no {path}: train it with `python -m pocket`")
    files = sorted(file for file in path.rglob("*.*") if file.suffix != ".pyc") if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()
