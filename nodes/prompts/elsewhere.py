"""What other programs save of pictures and faces, told by its shape: the features of a published encoder, identities.

Shapes: P pictures, S hidden states, F their width. diffusers keeps [2, P, ...]: "no picture" first, then the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from ...ipadapter_core import Feature, encoder_words
from ...ipadapter_core.facts.encoders import find_encoder
from ...ipadapter_core.method.spec import IDENTITY_DIM

TOKENS = (768, 2048)  # widths of text, which image tokens have
FEWEST = 50  # hidden states of a picture: 7 x 7 patches and the class
EXPECTED = (
    f"expected features of an image encoder ([pictures, width] or [pictures, states, width]) or identities of faces "
    f"([faces, {IDENTITY_DIM}])"
)


class Kept(NamedTuple):
    """What a file holds. kind: a feature, or None for identities. values: [P, F], [P, S, F] or [P, 512].

    nothing: the hidden states [1, S, F] of "no picture", where the file has them.
    """

    kind: Feature | None
    values: Tensor
    nothing: Tensor | None = None

    @property
    def words(self) -> str:
        """What and of how many, for people."""
        count, width = len(self.values), self.values.shape[-1]
        if self.kind is None:
            return f"identities of {count} face{'s' * (count > 1)}"
        length = self.values.shape[1] if self.values.ndim == 3 else None
        encoder = encoder_words(self.kind, width, length)
        return f"{self.kind} features of {count} picture{'s' * (count > 1)} ({encoder})"


def kept_in(tensors: Iterable[Tensor]) -> list[Kept]:
    """What tensors of one file are, those of a kind together. Raises ValueError for anything else, in words."""
    found: dict[Feature | None, Kept] = {}
    for value in tensors:
        kept = _kept(value)
        before = found.get(kept.kind)
        if before is not None and before.values.shape[1:] != kept.values.shape[1:]:
            raise ValueError(f"it holds {before.words} and {kept.words}: keep those of one encoder in a file")
        if before is not None:
            kept = Kept(kept.kind, torch.cat([before.values, kept.values]), before.nothing)
        found[kept.kind] = kept
    if not found:
        raise ValueError(f"it holds nothing: {EXPECTED}")
    return list(found.values())


def _kept(value: Tensor) -> Kept:
    shape = tuple(value.shape)
    if value.is_complex() or value.dtype == torch.bool or not shape or 0 in shape:
        raise ValueError(f"it holds {str(value.dtype).removeprefix('torch.')} {shape}: {EXPECTED}")
    value, width = value.float(), shape[-1]
    if width == IDENTITY_DIM:
        faces = _pictures(value, 1)
        if not faces.any(dim=1).all():
            raise ValueError(f"it holds an identity of zeros, which is no face: {EXPECTED}")
        return Kept(None, faces)
    if _is_states(shape):
        return _states(value)
    if find_encoder("pooled", width) is None:
        raise ValueError(f"it holds numbers {shape}, which no encoder gives: {EXPECTED}")
    if len(shape) > 2 and shape[-2] > 1 and width in TOKENS:
        raise ValueError(f"it holds {shape}, which are image tokens of one adapter: {EXPECTED}")
    return Kept("pooled", _pictures(value, 1))


def _is_states(shape: tuple[int, ...]) -> bool:
    """Whether these are hidden states: as wide as a known encoder's, one for each patch of a square and the class."""
    if len(shape) < 2 or find_encoder("penultimate", shape[-1]) is None:
        return False
    return shape[-2] >= FEWEST and isqrt(shape[-2] - 1) ** 2 == shape[-2] - 1


def _states(value: Tensor) -> Kept:
    """Hidden states; in diffusers' layout with "no picture" before them."""
    if value.ndim == 4 and len(value) == 2:
        return Kept("penultimate", value[1], value[0, :1])
    return Kept("penultimate", _pictures(value, 2))


def _pictures(value: Tensor, own: int) -> Tensor:
    """[P, ...], `own` dimensions of each picture; a first half of zeros is diffusers' "no picture"."""
    rows = value.reshape(-1, *value.shape[-own:])
    half = len(value) // 2
    if value.ndim > own + 1 and len(value) == 2 * half and not value[:half].any() and value[half:].any():
        rows = value[half:].reshape(-1, *value.shape[-own:])
    return rows
