"""Identities of faces in a dataset: ArcFace's 512 numbers, raw, in the list itself or in files beside the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load
from torch import Tensor

from ipadapter_core.method.spec import IDENTITY_DIM

from .pictures import Unusable

Identity = Sequence[float] | Path | bytes  # the numbers, a .npy or .safetensors file, or what is in one
SUFFIXES = (".npy", ".safetensors")
NUMPY = b"\x93NUMPY"
EXPECTED = f"expected ArcFace's {IDENTITY_DIM}, raw (insightface calls them embedding)"


def read_identity(identity: Identity | None) -> Tensor | Unusable:
    """[512], fp32; or why there is none."""
    try:
        if isinstance(identity, Path):
            identity = identity.read_bytes()
        found = _of_file(identity) if isinstance(identity, bytes) else identity
        numbers = torch.from_numpy(np.array(() if found is None else found, dtype=np.float32)).flatten()
    except FileNotFoundError:
        return Unusable("no identity", f"there is no file {identity!s}")
    except (OSError, ValueError, TypeError, EOFError, safetensors.SafetensorError) as error:
        return Unusable("no identity", f"its identity is damaged, or no .npy or .safetensors file ({error})")
    if len(numbers) != IDENTITY_DIM:
        return Unusable("no identity", f"its identity has {len(numbers)} numbers, {EXPECTED}")
    if not torch.isfinite(numbers).all() or not numbers.any():
        return Unusable("no identity", "its identity is zero or not finite: there was no face, or its model is damaged")
    return numbers


def _of_file(content: bytes) -> np.ndarray[Any, Any]:
    if content.startswith(NUMPY):
        found: np.ndarray[Any, Any] = np.load(BytesIO(content), allow_pickle=False)
        return found
    tensors = load(content)
    if len(tensors) != 1:
        raise ValueError(f"it holds {len(tensors)} tensors, expected one")
    return next(iter(tensors.values())).float().numpy()


def check_identity(value: Any, column: str, where: str, has: str) -> None:
    """Hold a list's value to what an identity can be. Raises ValueError that names the sample."""
    if isinstance(value, list) and all(isinstance(number, int | float) for number in value):
        if len(value) != IDENTITY_DIM:
            raise ValueError(f"{where} has {len(value)} numbers in {column!r}, {EXPECTED}: correct it")
    elif not (isinstance(value, str) and value.endswith(SUFFIXES)):
        raise ValueError(
            f"{where} has no {column!r} with a face's identity (it has {has}): give {IDENTITY_DIM} numbers or the name "
            "of a .npy or .safetensors file, or correct data.identity_column"
        )


def as_identity(value: Any, folder: Path) -> Identity:
    """A list's or table's value as an identity; names of files are relative to `folder`."""
    return folder / value if isinstance(value, str) else value
