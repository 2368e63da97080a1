"""Several pictures of one image prompt: what their batch means to an adapter.

Shapes: P pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .given import Given

CONCATENATE, ONE_FOR_EACH = "concatenate", "one for each latent"
# What makes one picture's features of several. The first two in this order, as they always were.
MERGES = ("average", "norm average", "add", "subtract", "max", "min")
MEANS = MERGES[:2]
LEAST = 1e-6  # of the sum of weights that a mean is divided by
COMBINE = (CONCATENATE, "average", ONE_FOR_EACH, *MERGES[1:])


def picture_weights(text: str) -> tuple[float, ...]:
    """Weights of pictures from a text, "1, 0.5"; () where it is blank. Raises ValueError for what is no number."""
    words = [word for word in text.replace("\n", ",").split(",") if word.strip()]
    try:
        weights = tuple(float(word) for word in words)
    except ValueError:
        weights = (float("nan"),)
    if not torch.isfinite(torch.tensor(weights)).all():
        raise ValueError(f"weights of pictures are {text!r}: give a number for each picture, as in '1, 0.5'")
    return weights


def check_weights(weights: Sequence[float], rows: int, how: str) -> None:
    """Raises ValueError where there are weights, but not one for each picture, and where a mean has no share at all."""
    if weights and len(weights) != rows:
        raise ValueError(
            f"{_counted(len(weights), 'weight')} of pictures for {_counted(rows, 'picture')}: give one each, or none"
        )
    if weights and how in MEANS and abs(sum(weights)) < LEAST:
        raise ValueError("the weights of the pictures sum to 0, so they have no average: change one of them")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def merged(given: Given, how: str, weights: Sequence[float] = ()) -> Given:
    """One picture's features and identities of several; unchanged where each keeps tokens of its own.

    how: one of COMBINE. weights: of each picture, a factor of its features (of its share, where a mean is taken);
    (): all alike. Raises ValueError for an unknown name.
    """
    if how not in COMBINE:
        raise ValueError(f"unknown way to combine pictures {how!r}: choose one of {', '.join(COMBINE)}")
    if how not in MERGES:
        return given
    check_weights(weights, given.rows, how)
    return Given(*(None if value is None else _merged(value, how, weights) for value in given))


def _merged(value: Tensor, how: str, weights: Sequence[float]) -> Tensor:
    """[P, ...] to [1, ...]."""
    factor = torch.tensor(weights or [1.0] * len(value), dtype=value.dtype, device=value.device)
    factor = factor.view(-1, *[1] * (value.ndim - 1))
    if how == "norm average" and len(value) > 1:  # one picture stays as it is, "no picture" too
        value = torch.nn.functional.normalize(value, dim=-1)
    if how in MEANS:
        if not weights:
            return value.mean(0, keepdim=True)
        return (value * factor).sum(0, keepdim=True) / factor.sum()
    value = value * factor if weights else value
    if how == "add":
        return value.sum(0, keepdim=True)
    if how == "subtract":
        return value[:1] - value[1:].mean(0, keepdim=True) if len(value) > 1 else value
    return value.amax(0, keepdim=True) if how == "max" else value.amin(0, keepdim=True)
