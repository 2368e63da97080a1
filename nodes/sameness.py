"""Whether what an adapter is given is what it was given before: tokens of tensors, found without reading them again.

*Apply* makes some tensors anew whenever a widget changes (zeros for "no picture", identities cut to length one), so a
token is made of the content the first time that a tensor is seen, and kept with it while it lives.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..ipadapter_core import Given

READ = 4 * 2**20  # bytes up to which content is compared; above, a tensor is the same only where it is the same object
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a value

_seen: Any = WeakTensorKeyDictionary()  # tensor to (state, token)
_numbers = itertools.count()


def token_of(tensor: Tensor) -> Hashable:
    """A value that is equal for equal tensors, and another one after a change in place."""
    state = _state_of(tensor)
    known = _seen.get(tensor)
    if known is None or known[0] != state:
        known = _seen[tensor] = state, (tuple(tensor.shape), tensor.dtype, _content(tensor))
    return known[1]


def tokens_of(given: Given) -> tuple[Hashable, ...]:
    """Tokens of all that an adapter is given."""
    return tuple(None if value is None else token_of(value) for value in given)


def version_of(module: nn.Module) -> int:
    """A number that grows with every change of the weights in place, where torch counts them."""
    return sum(value._version for value in module.parameters() if not value.is_inference())


def _state_of(tensor: Tensor) -> Hashable:
    """What a change in place changes. Torch counts none of tensors made in inference mode: the bits of each row."""
    if not tensor.is_inference():
        return tensor._version
    bits = tensor.contiguous().view(INTEGERS[tensor.element_size()])
    rows = bits.reshape(len(bits) if bits.ndim > 1 else 1, -1)  # a bias has one
    return tuple(rows.sum(1).tolist())


def _content(tensor: Tensor) -> Hashable:
    if tensor.nbytes > READ:
        return next(_numbers)
    values = tensor.detach().flatten().contiguous().cpu().view(torch.uint8)
    return hashlib.blake2b(values.numpy().data, digest_size=16).digest()
