"""Faces as the older nodes found them, with insightface's FaceAnalysis.

Shapes: P pictures, one face of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...ipadapter_core import AdapterSpec
from ...ipadapter_core.facts.bases import KOLORS
from ...ipadapter_core.method.picture import check_finite
from ..prompts.insight import aligned

SIZES = range(640, 319, -64)  # squares that the detector looks at, in pixels, until a face is found


def crop_size(spec: AdapterSpec) -> int:
    """Pixels of the face's picture."""
    if spec.base == KOLORS.name:
        return 336
    return 256 if spec.context_dim == 2048 else 224


def found(analysis: Any, image: Tensor, size: int, raw: bool) -> tuple[Tensor, Tensor]:
    """Identities [P, 512] and aligned faces [P, size, size, 3] of the surest face of each picture [P, H, W, C].

    raw: the identities as the model gives them, else of length one. Raises ValueError where a picture has no face, and
    for NaN in one.
    """
    check_finite(image, "the picture")
    identities, crops = [], []
    for number, picture in enumerate(image):
        rgb = (255 * picture[..., :3].detach().cpu().float()).clamp(0, 255).to(torch.uint8).numpy()
        bgr = np.ascontiguousarray(rgb[..., ::-1])  # what insightface reads
        face = _face(analysis, bgr)
        if face is None:
            raise ValueError(
                f"no face was found in picture {number + 1}: use one where a face is larger, less turned, not covered"
            )
        identities.append(torch.from_numpy(np.array(face.embedding if raw else face.normed_embedding)).float())
        crop = aligned(bgr, face.kps, size)[..., ::-1]
        crops.append(torch.from_numpy(np.ascontiguousarray(crop)).float() / 255)
    return torch.stack(identities), torch.stack(crops)


def _face(analysis: Any, bgr: np.ndarray) -> Any | None:
    """The face that the detector is surest of, in the largest square that shows it one."""
    try:
        for size in SIZES:
            # By `prepare`, which every version of insightface has; some of them ignore a changed `input_size`.
            analysis.det_model.prepare(0, input_size=(size, size))
            if faces := analysis.get(bgr):
                return faces[0]
    finally:
        analysis.det_model.prepare(0, input_size=(SIZES[0], SIZES[0]))
    return None
