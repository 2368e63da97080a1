"""What attention maps tell of pocket's pictures, whose shapes are known: drawings, noised half-way and drawn again.

A colour map that looks right proves nothing; the place of a shape that the world itself drew does.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from pocket.evidence.where import auc, inside_over_outside, shapes
from pocket.places import Places
from pocket.world.drawing import chance, draw
from pocket.world.scenes import DEVELOP, SHAPE, SHAPES, SIZE, random_scenes
from pocket.world.settings import GUIDANCE
from tests.support import host, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
COUNT, STEPS = 24, 12
CORNER = 13.0  # pixels from the middle in both directions


@functools.cache
def known() -> tuple[Any, Any, Any, Tensor, Tensor, list[str]]:
    """Model, text encoder, prompt, and COUNT drawings as latents, the places of their shapes, and what they show.

    References are drawn as ever, in the middle; the drawings that are made again have their shapes in the four corners
    in turn, so that a map that always has the same middle cannot tell them.
    """
    places, parts, generator = Places(), host.part("pocket.comfyui"), torch.Generator().manual_seed(DEVELOP)
    scenes, usual = random_scenes(COUNT, generator), chance(COUNT, generator)
    scenes[:, SIZE] = 0
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]).repeat(COUNT // 4, 1)
    given = dataclasses.replace(usual, shift=CORNER * corners)
    reference, drawn = (draw(scenes, one).movedim(1, -1) for one in (usual, given))
    encoders = host.part("nodes.encoders")
    encoder = encoders._from_path(places.encoder, encoders.AUTO)
    with torch.inference_mode():
        latents = parts.load_vae(places).encode(drawn)
        prompt = host.part("nodes.prompts.pictures").encode(encoder, reference, "centre")
    words = [f"a {SHAPES[number]}" for number in scenes[:, SHAPE].tolist()]
    masks = shapes(scenes, given, (8, 8))
    return parts.load_model(places), parts.load_clip(places), prompt, latents, masks, words


def maps_of(preset: str, has_text: bool, layers: str = "") -> Tensor:
    """Maps [COUNT, 8, 8] of each drawing's own reference while the drawing is made again from half its noise."""
    model, clip, prompt, latents, _, words = known()
    adapter = host.part("nodes.models").load_adapter(Places().adapters / f"{preset}.safetensors")
    patched = models.apply(model, adapter, prompt, combine="one for each latent")
    patched, record = host.part("nodes.forms.record").RecordAttention.execute(patched).args
    with torch.inference_mode():
        states = [clip.encode_from_tokens_scheduled(clip.tokenize(text))[0] for text in (*words, "")]
        # A row of text for each latent, so that every drawing is told its own shape.
        every = torch.cat([states[i if has_text else -1][0] for i in range(COUNT)])
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
        made = models.comfy.sample.sample(
            model=patched, noise=noise, steps=STEPS, cfg=GUIDANCE, sampler_name="ddim", scheduler="ddim_uniform",
            positive=[[every, states[-1][1]]], negative=[[states[-1][0], states[-1][1]]], latent_image=latents,
            denoise=0.5, seed=3, disable_pbar=True,
        )  # fmt: skip
        return host.part("nodes.attention_map").attention_map(record.of(made), 0, layers).shares


@pytest.mark.parametrize("preset", ["pocket", "pocket_plus"])
def test_a_text_takes_its_shape_and_leaves_the_ground_to_the_picture(preset: str) -> None:
    """The share falls where the text's shape is, more than without text; another drawing's shape tells nothing."""
    masks, found = known()[4], {}
    for has_text in (False, True):
        maps = maps_of(preset, has_text)
        own = maps - maps.mean(0)  # what a place has in all drawings alike says nothing of this one's shape
        found[has_text] = auc(own, masks).mean().item()
        others = torch.stack([auc(own, masks.roll(times, 0)).mean() for times in range(1, COUNT)]).mean().item()
        said = "names the shape" if has_text else "is empty"
        print(
            f"\n{preset}, the text {said}: share {maps.mean():.2f}, inside over outside "
            f"{inside_over_outside(maps, masks).mean():.3f}; AUC {auc(maps, masks).mean():.2f}, less the mean of all "
            f"drawings {found[has_text]:.2f}, with other drawings' shapes {others:.2f}"
        )
        assert abs(others - 0.5) < 0.06
    assert found[True] < 0.27 and found[True] < found[False] - 0.08
