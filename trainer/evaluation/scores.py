"""What is measured of every picture, from embeddings: cosines with its reference, a wrong one and its text.

Shapes: R references, S samples of each, E width of an embedding of length one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .protocol import CLIP_SCORE


class Measure(NamedTuple):
    """A figure of the table. judge: the kind of judge that it needs. better: +1 where more is better, -1, or 0."""

    title: str
    judge: str
    about: str
    better: int = 1


MEASURES = {
    "clip_i": Measure("CLIP-I", "clip", "cosine of picture and reference"),
    "clip_t": Measure("CLIP-T", "clip", "cosine of picture and text: the reference's caption, or the prompt"),
    "clip_score": Measure("CLIPScore", "clip", f"{CLIP_SCORE:g} times CLIP-T where that is not negative"),
    "dino_i": Measure("DINO-I", "dino", "cosine of picture and reference by DINOv2's class token"),
    "style": Measure("style", "style", "cosine of the style embeddings of picture and reference"),
    "content": Measure("content", "style", "cosine of the content embeddings of picture and reference"),
    "identity": Measure("identity", "identity", "cosine of the faces, where both have one"),
    "face": Measure("face found", "identity", "share of pictures with a face, of references that have one"),
    "diversity": Measure("diversity", "clip", "1 - the mean cosine between the samples of one reference"),
    "clip_i_wrong": Measure("CLIP-I, wrong reference", "clip", "the same with the reference before", 0),
    "dino_i_wrong": Measure("DINO-I, wrong reference", "dino", "the same with the reference before", 0),
}
DIGITS = 6  # after the point, of a score that is kept
COSINES = {"clip_i": "clip", "dino_i": "dino", "style": "style", "content": "content", "identity": "identity"}
WITH_WRONG = ("clip_i", "dino_i")


def score(
    pictures: dict[str, Tensor], references: dict[str, Tensor], wrong: dict[str, Tensor], texts: Tensor | None
) -> dict[str, list[list[float | None]]]:
    """Scores by measure, a list of samples for each reference; None where there is none (no face).

    pictures: by kind [R, S, E]. references, wrong: by kind [R, E]. texts [R, E]: None without a text encoder.
    """
    found: dict[str, Tensor] = {}
    for name, kind in COSINES.items():
        if kind in pictures:
            found[name] = cosines(pictures[kind], references[kind])
        if kind in pictures and name in WITH_WRONG:
            found[f"{name}_wrong"] = cosines(pictures[kind], wrong[kind])
    if texts is not None:
        found["clip_t"] = cosines(pictures["clip"], texts)
        found["clip_score"] = CLIP_SCORE * found["clip_t"].clamp_min(0)
    if "clip" in pictures and pictures["clip"].shape[1] > 1:
        found["diversity"] = diversity(pictures["clip"])[:, None]
    if "identity" in pictures:
        has_face = (~pictures["identity"].isnan().any(-1)).double()
        is_faceless = references["identity"].isnan().any(-1)
        found["face"] = torch.where(is_faceless[:, None], torch.nan, has_face)
    return {name: [[_plain(value) for value in row] for row in values.tolist()] for name, values in found.items()}


def cosines(pictures: Tensor, others: Tensor) -> Tensor:
    """[R, S] of pictures [R, S, E] with one other [R, E] for each reference."""
    return (pictures.double() * others.double()[:, None]).sum(-1)


def diversity(pictures: Tensor) -> Tensor:
    """[R]: how far the samples of a reference [R, S, E] are from each other, over the pairs of two."""
    values, count = pictures.double(), pictures.shape[1]
    together = values @ values.transpose(1, 2)
    pairs = together.sum((1, 2)) - together.diagonal(dim1=1, dim2=2).sum(-1)
    return 1 - pairs / (count * (count - 1))


def _plain(value: float) -> float | None:
    return None if value != value else round(value, DIGITS)
