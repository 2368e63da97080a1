"""Tensors that nobody named: what torch.save and numpy.save wrote of one picture or face, or of several."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from .read import flattened, has_header, head_of, read_weights, unpickled

NUMPY = b"\x93NUMPY"


def read_tensors(path: str | os.PathLike[str]) -> tuple[Tensor, ...]:
    """The tensors in a file: one or a list of torch.save's, an array of numpy's, or those of any names; no code runs.

    Raises ValueError as `read_weights` does, and when there is something else in it.
    """
    path = Path(path)
    if head_of(path).startswith(NUMPY):
        return (_array(path),)
    if has_header(path):
        return tuple(read_weights(path).tensors.values())
    content = unpickled(path)
    if isinstance(content, Tensor):
        return (content,)
    if isinstance(content, Mapping):
        return tuple(flattened(content, path, Tensor).values())
    if isinstance(content, list | tuple) and content and all(isinstance(value, Tensor) for value in content):
        return tuple(content)
    raise ValueError(
        f"{path.name} holds a {type(content).__name__} of other things than tensors: choose a file of torch.save or "
        "numpy.save with nothing but tensors in it"
    )


def read_tensor(path: str | os.PathLike[str]) -> Tensor:
    """The only tensor in a file. Raises ValueError as `read_tensors` does, and when there are several."""
    found = read_tensors(path)
    if len(found) != 1:
        raise ValueError(f"{Path(path).name} holds {len(found)} tensors, expected one: choose another file")
    return found[0]


def _array(path: Path) -> Tensor:
    """By a map of the file, which holds a header's claims to the file's size; objects are not read."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if found.dtype.kind not in "fiu":
            raise ValueError(f"it holds {found.dtype}")
        return torch.from_numpy(np.array(found, dtype=np.float32))
    except (OSError, EOFError, ValueError, TypeError, ArithmeticError, SyntaxError, TokenError) as error:
        raise ValueError(f"{path.name} is damaged, or no array of numbers ({error}): save it again") from error
