"""The older nodes for features of pictures: made, combined, saved and loaded.

EMBEDS is a tensor of features, pooled [P, F] or penultimate [P, S, F], before any projection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ...ipadapter_core import Given, read_tensor
from .asked import combined
from .features import checked, encode, encoder_size, feature_of, no_picture
from .inputs import EMBEDS
from .sockets import models_of


def encode_picture(
    ipadapter: Any, image: Tensor, weight: float | None = 1.0, mask: Tensor | None = None, clip_vision: Any = None,
    exact: bool | None = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(features times the weight, what stands for no picture). Raises ValueError for adapters of faces."""
    models = models_of(ipadapter, clip_vision)
    spec, name = models.adapter.spec, models.adapter.name
    if spec.identity is not None:
        raise ValueError(f"{name} reads faces, which this encoder does not find: use IPAdapter FaceID")
    encoder = models.encoder()
    features = encode(encoder, image, feature_of(spec, name), encoder_size(spec), mask=mask)
    given = Given(checked(spec, name, features))
    nothing = no_picture(spec, given, encoder, bool(exact)).features
    assert nothing is not None
    return features * (1.0 if weight is None else weight), nothing


def combine(
    embed1: Tensor, method: str | None = None, embed2: Tensor | None = None, embed3: Tensor | None = None,
    embed4: Tensor | None = None, embed5: Tensor | None = None, exact: bool | None = False,
) -> tuple[Tensor]:  # fmt: skip
    """The batches one after another, and one picture of them where the method asks for it."""
    parts = [part for part in (embed1, embed2, embed3, embed4, embed5) if part is not None]
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"the embeds are of {' and '.join(map(str, sorted(shapes)))}: make them with one encoder")
    found = combined(Given(torch.cat(parts)), method or "concat", bool(exact)).features
    assert found is not None
    return (found,)


def save(embeds: Tensor, filename_prefix: str | None = None) -> dict[str, Any]:
    """Write them into the folder of outputs as PREFIX_00001.ipadpt; no file is written over."""
    root = folder_paths.get_output_directory()
    folder, stem, counter, _, _ = folder_paths.get_save_image_path(filename_prefix or "IP_embeds", root)
    torch.save(embeds.detach().cpu().clone(), Path(folder, f"{stem}_{counter:05}{EMBEDS}"))
    return {"ui": {}}


def load(embeds: str) -> tuple[Tensor]:
    """Read a file of the folder of inputs; no code in it runs. Raises ValueError when it is not one of features."""
    root = Path(folder_paths.get_input_directory())
    path = root / embeds
    if ".." in path.parts or not path.is_relative_to(root) or not path.is_file():
        raise ValueError(f"{embeds!r} was not found in {root}: put the {EMBEDS} file there")
    found = read_tensor(path)
    if found.ndim not in (2, 3) or not found.is_floating_point():
        raise ValueError(f"{embeds} holds {tuple(found.shape)} values, no features of pictures: choose another file")
    return (found,)
