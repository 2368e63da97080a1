"""What a projection reads of pictures and faces, and what "no picture" is.

Shapes: P pictures or faces, F width of the image encoder's features, S sequence of its hidden states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .spec import AdapterSpec, Identity


class Given(NamedTuple):
    """What an adapter is given of P pictures or faces.

    features: pooled [P, F] or hidden states [P, S, F]; None for an adapter without an image encoder.
    identities: [P, 512] as the adapter reads them (`read_identities`); None for an adapter without faces.
    """

    features: Tensor | None = None
    identities: Tensor | None = None

    @property
    def rows(self) -> int:
        """P. There is at least one of the two."""
        first = self.identities if self.features is None else self.features
        assert first is not None, "neither features nor identities"
        return len(first)

    def to(self, device: torch.device) -> Given:
        """The same on another device."""
        return Given(*(value if value is None else value.to(device) for value in self))

    def rows_for(self, count: int) -> Given:
        """As many rows as `count`: the last one is repeated, and what is beyond is left out."""
        index = [min(row, self.rows - 1) for row in range(count)]
        return self if count == self.rows else Given(*(value if value is None else value[index] for value in self))

    def joined(self, other: Given) -> Given:
        """These rows, then the other's; both have the same fields."""
        pairs = zip(self, other, strict=True)
        return Given(*(None if one is None or two is None else torch.cat([one, two]) for one, two in pairs))

    def expanded(self, rows: int) -> Given:
        """One row as often as `rows`, without a copy."""
        return Given(*(value if value is None else value.expand(rows, *value.shape[1:]) for value in self))

    def dropped(self, drop: Tensor, nothing: Given) -> Given:
        """`nothing` (one row) in place of the rows where `drop` [P] is true (IP-Adapter, section 3.2.1)."""
        pairs = zip(self, nothing, strict=True)
        return Given(*(None if one is None or zero is None else _where(drop, zero, one) for one, zero in pairs))


def _where(drop: Tensor, zero: Tensor, value: Tensor) -> Tensor:
    return torch.where(drop.view(-1, *[1] * (value.ndim - 1)), zero, value)


def read_identities(raw: Tensor, identity: Identity) -> Tensor:
    """ArcFace identities [P, 512] as an adapter reads them: of length one ("normed"), or as they are ("raw")."""
    return F.normalize(raw, dim=-1) if identity == "normed" else raw


def nothing(spec: AdapterSpec, given: Given, zero_states: Callable[[], Tensor]) -> Given:
    """What stands for "no picture", one row: what a dropped picture is in training, and the unconditional side.

    A zero embedding for pooled features, the hidden states of a picture of zeros for the others (zeros where the spec
    says so), and an identity of zeros.
    zero_states: gives those hidden states, [1, S, F]; called only where they are needed.
    """
    features = given.features
    if features is not None:
        is_zero = spec.feature == "pooled" or spec.zero_features
        features = torch.zeros_like(features[:1]) if is_zero else zero_states().to(features)
    return Given(features, None if given.identities is None else torch.zeros_like(given.identities[:1]))
