"""Stage 2, the text encoder: a stock CLIPTextModel of 64 x 2 layers, on the few tokens that pocket's words need."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainer.base.tokenizer import clip_tokenizer

from ..places import Places
from ..world.scenes import BACKGROUND, COLOUR, COUNTS, SHAPE, WORDS, caption, random_scenes
from .fitting import Recipe, fit, write_weights

RECIPE = Recipe(steps=400, batch=64, rate=3e-3, warmup=20)
WIDTH, LENGTH = 64, 77
START, END = "<|startoftext|>", "<|endoftext|>"
TOLD = (SHAPE, COLOUR, BACKGROUND)  # what a caption can tell


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with those of its merges that pocket's words use; other words end in single letters."""
    state = json.loads(clip_tokenizer().backend_tokenizer.to_str())["model"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(state["merges"])}
    used = sorted({pair for word in WORDS for pair in _merges(word, ranks)}, key=ranks.__getitem__)
    letters = sorted({chr(number) for number in range(ord("a"), ord("z") + 1)})
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in used), START, END]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        merges=used,
        pad_token=END,
        model_max_length=LENGTH,
    )


def _merges(word: str, ranks: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    """The merges that byte pair encoding applies to a word, by their rank."""
    parts, applied = [*word[:-1], f"{word[-1]}</w>"], []
    while pairs := [pair for pair in pairwise(parts) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        applied.append(best)
        place = list(pairwise(parts)).index(best)
        parts[place : place + 2] = ["".join(best)]
    return applied


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


class Reader(nn.Module):
    """The text encoder with heads that tell, from any position after the text, what it names (or that it does not)."""

    def __init__(self, encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.heads = nn.ModuleList(nn.Linear(WIDTH, COUNTS[attribute] + 1) for attribute in TOLD)

    def loss(self, texts: list[str], labels: Tensor, generator: torch.Generator) -> Tensor:
        tokens = tokenise(self.tokenizer, texts)
        states = self.encoder(tokens).last_hidden_state
        ends = (tokens == self.tokenizer.eos_token_id).int().argmax(1)
        share = torch.rand(len(texts), generator=generator)
        places = (ends + share * (LENGTH - ends)).long()
        states = states[torch.arange(len(texts)), places]
        losses = [F.cross_entropy(head(states), labels[:, place]) for place, head in enumerate(self.heads)]
        return torch.stack(losses).mean()


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    found: Any = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return found.input_ids


def drawn_texts(count: int, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """Captions as the base sees them, and what each names [B, 3]; the last class of each: nothing."""
    scenes = random_scenes(count, generator)
    told = torch.rand(count, 3, generator=generator) < torch.tensor([0.88, 0.5, 0.5])
    told[:, 1:] &= told[:, :1]
    texts = [caption(scene, bool(has[1]), bool(has[2])) if has[0] else "" for scene, has in zip(scenes, told)]
    return texts, torch.where(told, scenes[:, list(TOLD)], torch.tensor([COUNTS[attribute] for attribute in TOLD]))


def train(places: Places) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    reader = Reader(build(tokenizer), tokenizer)
    fit(
        "text_encoder",
        reader,
        lambda generator: reader.loss(*drawn_texts(RECIPE.batch, generator), generator),
        RECIPE,
        places.work,
    )
    with torch.no_grad():  # letters that no training saw say nothing
        known = tokenise(tokenizer, [" ".join(WORDS), ""]).unique()
        rows = reader.encoder.get_input_embeddings().weight
        rows[[number for number in range(len(rows)) if number not in known]] = 0
    write_tokenizer(tokenizer, places)
    reader.encoder.config.architectures = ["CLIPTextModel"]
    reader.encoder.config.save_pretrained(places.base / "text_encoder")
    write_weights(places.base / "text_encoder" / "model.safetensors", reader.encoder, {"format": "pt"})


def write_tokenizer(tokenizer: CLIPTokenizer, places: Places) -> None:
    """As transformers saves it, and as its older versions read it."""
    folder = places.base / "tokenizer"
    tokenizer.save_pretrained(folder)
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(state["vocab"], ensure_ascii=False))
    lines = [" ".join(pair) for pair in state["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")


@torch.no_grad()
def report(places: Places) -> dict[str, float]:
    """Whether the encoder's folder loads as stock classes, and words of the same kind are told apart."""
    tokenizer = CLIPTokenizer.from_pretrained(places.base / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(places.base / "text_encoder", dtype=torch.float32)
    states = encoder(tokenise(tokenizer, [f"a {word}" for word in WORDS[2:]])).last_hidden_state[:, -1]
    gaps = torch.cdist(states, states) + 1e3 * torch.eye(len(states))
    return {"tokens": len(tokenizer), "smallest_distance_of_words": round(float(gaps.min()), 3)}
