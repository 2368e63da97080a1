"""CLIP-I and CLIP-T: how near pictures are to their reference and to their text, as cosines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from ..base.encoder import load_encoder, load_tag


class Scorer:
    """A CLIP of both towers: an open_clip ARCHITECTURE/TAG, or a transformers folder.

    Raises ValueError when it is neither, or has no text encoder.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.device = device
        self.images = load_encoder(name).to(device)
        self.model, self.tokenizer = _text_tower(name)
        self.model.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def embed_pictures(self, pictures: list[Image.Image]) -> Tensor:
        """Pictures to unit embeddings [B, E]."""
        return F.normalize(self.images(self.images.pixels(pictures).to(self.device), "pooled"), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """Texts to unit embeddings [B, E]."""
        if isinstance(self.model, CLIPModel):
            tokens = self.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            output = self.model.text_model(input_ids=tokens.input_ids.to(self.device))
            return F.normalize(self.model.text_projection(output.pooler_output), dim=-1)
        return F.normalize(self.model.encode_text(self.tokenizer(texts).to(self.device)), dim=-1)

    def image_similarity(self, pictures: list[Image.Image], references: list[Image.Image]) -> float:
        """The mean cosine of pictures and their references (CLIP-I)."""
        return float((self.embed_pictures(pictures) * self.embed_pictures(references)).sum(-1).mean())

    def text_similarity(self, pictures: list[Image.Image], text: str) -> float:
        """The mean cosine of pictures and a text (CLIP-T; the paper's CLIPScore is 2.5 times it)."""
        return float((self.embed_pictures(pictures) @ self.embed_texts([text]).T).mean())


def _text_tower(name: str) -> tuple[Any, Any]:
    if not Path(name).exists():
        architecture, _, tag = name.partition("/")
        return load_tag(architecture, tag), open_clip.get_tokenizer(architecture)
    folder = Path(name)
    if not (folder / "tokenizer_config.json").exists():
        raise ValueError(
            f"run.score_encoder = {name!r} has no text encoder with a tokenizer: give a CLIP folder or an open_clip tag"
        )
    return CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
