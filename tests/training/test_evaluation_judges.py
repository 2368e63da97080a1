"""The judges against transformers' own models, and the statistics against scipy and the formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from torchmetrics.functional.multimodal import clip_score
from transformers import (
    AutoTokenizer,
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionModelWithProjection,
    Dinov2Model,
)

from tests.support import clip_models, evaluation, needs
from trainer.evaluation import figures
from trainer.evaluation.judges import Clip, Dino, Faces, Style
from trainer.evaluation.scores import score

CPU = torch.device("cpu")
TEXTS = ("a red star", "a cup of coffee on a table")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Real pictures, of both orientations and odd sizes."""
    folder = Path(skimage.data.__file__).parent
    found = [Image.open(folder / name).convert("RGB") for name in ("astronaut.png", "chelsea.png", "coffee.png")]
    return [found[0].crop((0, 0, 211, 307)), found[1], found[2].resize((77, 53))]


@torch.no_grad()
def test_clip_is_transformers_own(tmp_path: Path, photos: list[Image.Image]) -> None:
    folder = evaluation.write_clip(tmp_path / "clip")
    judge, model = Clip(str(folder), CPU), CLIPModel.from_pretrained(folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(images=photos, return_tensors="pt").pixel_values
    tokens = AutoTokenizer.from_pretrained(folder)(
        list(TEXTS), padding="max_length", max_length=77, return_tensors="pt"
    )
    output = model(**tokens, pixel_values=pixels)
    images, texts = judge.embed(photos)["clip"], torch.stack([judge.embed_text(text) for text in TEXTS])
    off = float((images @ images.T - F.normalize(output.image_embeds) @ F.normalize(output.image_embeds).T).abs().max())
    off = max(
        off,
        float((images @ texts.T - F.normalize(output.image_embeds) @ F.normalize(output.text_embeds).T).abs().max()),
    )
    print(f"\nCLIP-I and CLIP-T, largest difference from transformers: {off:.1e}")
    assert off <= 1e-5


@torch.no_grad()
def test_dino_is_transformers_own(tmp_path: Path, photos: list[Image.Image]) -> None:
    folder = evaluation.write_dino(tmp_path / "dino")
    mine = Dino(str(folder), CPU).embed(photos)["dino"]
    pixels = BitImageProcessorPil.from_pretrained(folder)(images=photos, return_tensors="pt").pixel_values
    theirs = F.normalize(Dinov2Model.from_pretrained(folder).eval()(pixel_values=pixels).pooler_output)
    off = float((mine @ mine.T - theirs @ theirs.T).abs().max())
    print(f"\nDINO-I, largest difference from transformers: {off:.1e}; {(mine @ mine.T)[0].tolist()}")
    assert off <= 1e-5
    assert float((mine @ mine.T)[0, 1]) < 0.9999


@torch.no_grad()
def test_style_is_two_heads_on_clips_tower(tmp_path: Path, photos: list[Image.Image]) -> None:
    path, config = evaluation.write_style(tmp_path / "style.safetensors"), evaluation.style_config()
    mine = Style(str(path), CPU).embed(photos)
    tower = CLIPVisionModelWithProjection(config).eval()
    tower.load_state_dict(
        {key: value.float() for key, value in clip_models.random_weights(config).items()}, strict=False
    )
    shape = {"shortest_edge": 32}, {"height": 32, "width": 32}
    pixels = CLIPImageProcessorPil(size=shape[0], crop_size=shape[1])(images=photos, return_tensors="pt").pixel_values
    pooled = tower.vision_model(pixel_values=pixels).pooler_output
    generator, off = torch.Generator().manual_seed(6), 0.0
    for name in ("style", "content"):
        theirs = F.normalize(pooled @ torch.randn(768, 8, generator=generator), dim=-1)
        off = max(off, float((mine[name] @ mine[name].T - theirs @ theirs.T).abs().max()))
    print(f"\nstyle and content, largest difference from CLIP's tower and two matrices: {off:.1e}")
    assert off <= 1e-5


class Tensors(CLIPModel):
    """CLIP whose features are tensors, as in the transformers that torchmetrics 1.9 was written for."""

    def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_image_features(*args, **kwargs).pooler_output

    def get_text_features(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_text_features(*args, **kwargs).pooler_output


@torch.no_grad()
def test_clip_score_is_torchmetrics(tmp_path: Path, photos: list[Image.Image]) -> None:
    """It reports 100 times the cosine that is not negative, where the paper's convention is 2.5 times."""
    folder = evaluation.write_clip(tmp_path / "clip")
    judge, model, off = Clip(str(folder), CPU), Tensors.from_pretrained(folder).eval(), 0.0
    sees = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = CLIPProcessor(sees, AutoTokenizer.from_pretrained(folder))
    for text in TEXTS:
        embedded = judge.embed(photos)
        mine = score({"clip": embedded["clip"][:, None]}, embedded, embedded, judge.embed_text(text).expand(3, -1))
        for place, photo in enumerate(photos):
            tensor = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
            theirs = float(clip_score(tensor, text, model_name_or_path=lambda: (model, processor)))
            found = mine["clip_score"][place][0]
            assert found is not None
            off = max(off, abs(max(theirs, 0.0) / 100 * 2.5 - found))
    print(f"\nCLIPScore, largest difference from torchmetrics: {off:.1e}")
    assert off <= 1e-5


def test_identity_is_of_the_largest_face_and_nan_without_one() -> None:
    class Found:
        def __init__(self, side: float, seed: int) -> None:
            self.bbox = np.array([1.0, 1.0, 1.0 + side, 1.0 + side])
            self.embedding = np.random.default_rng(seed).normal(size=512)

    class ByWidth:
        """insightface's signature: as many faces as the picture is wide."""

        def get(self, picture: np.ndarray) -> list[Found]:
            return [Found(side, seed=side) for side in range(1, picture.shape[1])]

    pictures = [Image.new("RGB", (width, 4)) for width in (1, 3, 4, 3)]
    found = Faces(ByWidth()).embed(pictures)["identity"]
    expected = F.normalize(torch.tensor(Found(2, 2).embedding).float(), dim=0)
    assert torch.equal(found[1], expected)
    scores = score(
        {"identity": found[None, :3].expand(2, -1, -1)}, {"identity": found[[3, 0]]}, {"identity": found[:2]}, None
    )
    cosine = float(found[2].double() @ found[3].double())
    assert scores["face"] == [[0.0, 1.0, 1.0], [None] * 3]
    assert scores["identity"] == [[None, 1.0, round(cosine, 6)], [None] * 3]
    assert figures.mean(figures.of_references(scores["face"]), 200, 0.95).value == pytest.approx(2 / 3)


def test_scores_are_the_formulas() -> None:
    """Cosines, CLIPScore and diversity, written out in loops."""
    draw = np.random.default_rng(0)
    unit = lambda *shape: F.normalize(torch.from_numpy(draw.normal(size=shape)), dim=-1)  # noqa: E731
    pictures, references, texts = unit(4, 3, 8), unit(4, 8), unit(4, 8)
    found = score({"clip": pictures}, {"clip": references}, {"clip": references.roll(1, 0)}, texts)
    off = 0.0
    for r in range(4):
        pairs = [1 - float(pictures[r, a] @ pictures[r, b]) for a in range(3) for b in range(3) if a != b]
        off = max(off, abs(sum(pairs) / len(pairs) - found["diversity"][r][0]))
        for s in range(3):
            cosine = {
                "clip_i": float(pictures[r, s] @ references[r]),
                "clip_i_wrong": float(pictures[r, s] @ references[r - 1]),
                "clip_t": float(pictures[r, s] @ texts[r]),
                "clip_score": 2.5 * max(0.0, float(pictures[r, s] @ texts[r])),
            }
            off = max(off, *(abs(value - found[name][r][s]) for name, value in cosine.items()))
    print(f"\nscores, largest difference from the formulas: {off:.1e} (kept to 6 digits)")
    assert off <= 6e-7


def test_intervals_are_scipys() -> None:
    """The percentile bootstrap of both, of a skewed sample, within the noise of their resamples."""
    bootstrap = needs.module("scipy.stats").bootstrap
    values = torch.from_numpy(np.random.default_rng(1).gamma(2.0, 0.1, size=400))
    mine = figures.mean(values, 10_000, 0.95)
    ends = [
        bootstrap((values.numpy(),), np.mean, n_resamples=10_000, method="percentile", rng=seed).confidence_interval
        for seed in range(4)
    ]
    width, off = mine.high - mine.low, max(max(abs(mine.low - one.low), abs(mine.high - one.high)) for one in ends)
    print(f"\nbootstrap, largest distance of an end from scipy's: {off / width:.1%} of the width")
    assert off < 0.04 * width


def test_a_difference_is_told_from_chance() -> None:
    draw = np.random.default_rng(2)
    hard = draw.normal(0, 1, 500)  # references differ far more than systems do, so only pairs can tell
    first, second, third = (torch.from_numpy(hard + draw.normal(shift, 0.1, 500)) for shift in (0, 0.03, 0.0))
    real, chance = figures.difference(first, second, 2000, 0.95), figures.difference(first, third, 2000, 0.95)
    unpaired = figures.mean(first, 2000, 0.95), figures.mean(second, 2000, 0.95)
    print(f"\npaired: {real} and {chance}; alone: {unpaired[0]} and {unpaired[1]}")
    assert real.is_real
    assert not chance.is_real
    assert unpaired[0].high > unpaired[1].low
    # how often a true difference of none is called real: 5 %, within the noise of 200 tries
    wrong = sum(
        figures.difference(torch.zeros(60).double(), torch.from_numpy(draw.normal(0, 1, 60)), 400, 0.95).is_real
        for _ in range(200)
    )
    print(f"called real by chance: {wrong} of 200")
    assert 2 <= wrong <= 24


def test_wrong_judges_are_refused_in_a_sentence(tmp_path: Path) -> None:
    clip = evaluation.write_clip(tmp_path / "clip")
    with pytest.raises(ValueError, match="kind 'clip': for DINO-I give a folder of DINOv2"):
        Dino(str(clip), CPU)
    with pytest.raises(ValueError, match=r"no folder with a config\.json"):
        Dino(str(tmp_path / "nothing"), CPU)
    with pytest.raises(ValueError, match="has no backbone: the style encoder is a file of CSD's"):
        Style(str(clip / "model.safetensors"), CPU)
    with pytest.raises(ValueError, match="there is no style encoder"):
        Style(str(tmp_path / "nothing"), CPU)
    dino = evaluation.write_dino(tmp_path / "dino")
    with pytest.raises(ValueError, match="CLIP"):
        Clip(str(dino), CPU)
    assert json.loads((dino / "config.json").read_text())["model_type"] == "dinov2"
