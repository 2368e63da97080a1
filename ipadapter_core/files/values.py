"""Tensors that nobody named: what torch.save and numpy.save wrote of one picture or face, or of several."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from .read import WeightsFile, flattened, has_header, head_of, read_weights, unpickled

NUMPY = b"\x93NUMPY"


def read_values(path: str | os.PathLike[str]) -> WeightsFile:
    """The tensors in a file: one or a list of torch.save's, an array of numpy's, or named ones; no code in it runs.

    Those without a name are called by their number, "0" and so on.
    Raises ValueError as `read_weights` does, and when there is something else in it.
    """
    path = Path(path)
    if head_of(path).startswith(NUMPY):
        return WeightsFile({"0": _array(path)})
    if has_header(path):
        return read_weights(path)
    content = unpickled(path)
    if isinstance(content, Mapping):
        return WeightsFile(flattened(content, path, Tensor))
    several = list(content) if isinstance(content, list | tuple) else [content]
    if not several or not all(isinstance(value, Tensor) for value in several):
        raise ValueError(
            f"{path.name} holds a {type(content).__name__} of other things than tensors: choose a file of torch.save "
            "or numpy.save with nothing but tensors in it"
        )
    return WeightsFile({str(number): value for number, value in enumerate(several)})


def read_tensor(path: str | os.PathLike[str]) -> Tensor:
    """The only tensor in a file. Raises ValueError as `read_values` does, and when there are several."""
    found = list(read_values(path).tensors.values())
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
