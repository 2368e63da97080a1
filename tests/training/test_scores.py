"""CLIP-I and CLIP-T on the grid: transformers' own CLIP gives the same cosines, and a run logs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from tests.support import evaluation, runs
from trainer.sampling.scores import Scorer

TEXTS = ("a red star", "three words more than that")


@torch.no_grad()
def test_cosines_are_transformers_own(tmp_path: Path) -> None:
    folder = evaluation.write_clip(tmp_path / "clip")
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 255, (40, 48, 3), dtype=np.uint8)) for _ in range(3)]
    scorer = Scorer(str(folder), torch.device("cpu"))

    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor(images=pictures, return_tensors="pt").pixel_values
    tokens = tokenizer(list(TEXTS), padding="max_length", max_length=77, return_tensors="pt")
    output = model(**tokens, pixel_values=pixels)
    images, texts = F.normalize(output.image_embeds, dim=-1), F.normalize(output.text_embeds, dim=-1)

    by_text = [scorer.text_similarity(pictures, text) for text in TEXTS]
    off = max(abs(found - float((images @ text).mean())) for found, text in zip(by_text, texts, strict=True))
    others = pictures[1:] + pictures[:1]
    off = max(off, abs(scorer.image_similarity(pictures, others) - float((images * images.roll(-1, 0)).sum(-1).mean())))
    print(f"\nlargest difference of a cosine from transformers' own: {off:.1e}; cosines of texts {by_text}")
    assert off <= 1e-5
    assert abs(by_text[0] - by_text[1]) > 1e-3
    assert abs(scorer.image_similarity(pictures, pictures) - 1) <= 1e-5


@pytest.mark.slow
def test_a_run_logs_them_with_its_grid(tmp_path: Path) -> None:
    clip = evaluation.write_clip(tmp_path / "clip")
    run = {"steps": 2, "sample_every_steps": 2, "sample_steps": 2, "sample_pictures": 2, "score_encoder": str(clip)}
    config = runs.tiny_config(tmp_path, run=run)
    runs.run("train", runs.write_config(config, tmp_path / "config.toml"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (scores,) = [line for line in lines if "clip_i" in line]
    print(f"\n{scores}")
    assert scores["step"] == 2
    assert -1 <= scores["clip_i"] <= 1
    assert -1 <= scores["clip_t"] <= 1
    assert (tmp_path / "run" / "samples" / "step-00000002.png").exists()
