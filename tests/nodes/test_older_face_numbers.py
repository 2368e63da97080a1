"""What older face nodes predict, against formulas: insightface's own analysis on random models, a real photo."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import insightface
import numpy as np
import pytest
import torch
from insightface.app import FaceAnalysis
from insightface.utils import face_align
from PIL import Image
from torch import Tensor

from tests.support import models, older, published
from tests.support.older_cases import compare, encoder, model
from tests.support.older_features import Said, black, normalised, states, tokens
from tests.support.older_formulas import Application
from tools import face_models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
PHOTO = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
PLUS = {768: "FaceID plus v1 and v2 SD1.5", 2048: "FaceID plus v2 SDXL"}


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("faces")
    face_models.detector(root / "models" / "buffalo_l" / "det_10g.onnx")
    face_models.recogniser(root / "models" / "buffalo_l" / "w600k_r50.onnx")
    made = FaceAnalysis("buffalo_l", root=str(root), providers=["CPUExecutionProvider"])
    made.prepare(0, det_size=(640, 640))
    yield made


def photos() -> Tensor:
    """Two pictures with other faces, values that 8 bits do not hold."""
    photo = torch.from_numpy(np.asarray(Image.open(PHOTO).convert("RGB")).copy()).float() / 255
    return torch.stack([photo[:700, :640], photo[:700, -640:]]) * 0.97


def seen(analysis: Any, image: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Identities of length one, as they are, and aligned crops of the surest face of each picture."""
    normed, raw, crops = [], [], []
    for picture in image:
        bgr = np.ascontiguousarray((picture.numpy() * np.float32(255)).astype(np.uint8)[..., ::-1])
        face = max(analysis.get(bgr), key=lambda face: face.det_score)
        normed.append(face.normed_embedding)
        raw.append(face.embedding)
        crops.append(face_align.norm_crop(bgr, landmark=face.kps, image_size=size)[..., ::-1].astype(np.float32) / 255)
    return tuple(torch.from_numpy(np.stack(rows)) for rows in (normed, raw, crops))


@functools.cache
def weights(layout: str, base: str = "SD15") -> dict[str, Tensor]:
    """The projection of a published layout with layers of the small model, strong enough to be seen."""
    projection = {key: value for key, value in published.LAYOUTS[layout].items() if key.startswith("image_proj.")}
    layers = models.adapter_weights("base", model(base))
    return published.filled(projection) | {key: value for key, value in layers.items() if key.startswith("ip_adapter.")}


def loaded(layout: str, base: str, **more: bool) -> dict[str, Any]:
    return older.nested(weights(layout, base)) | more


MODES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "identity": ("SD15", "FaceID SD1.5", "IPAdapterFaceID", {}),
    "identity, SDXL": ("SDXL", "FaceID SDXL", "IPAdapterFaceID", {}),
    "portrait, added": ("SD15", "FaceID portrait SD1.5", "IPAdapterFaceID", {"combine_embeds": "add"}),
    "portrait, negative ignored": ("SD15", "FaceID portrait SD1.5", "IPAdapterFaceID", {"image_negative": True}),
    "portrait, frames": ("SD15", "FaceID portrait SD1.5", "IPAAdapterFaceIDBatch", {"weight": [0.4, 1.0, 0.7]}),
    "unnorm": ("SDXL", "FaceID portrait unnorm SDXL", "IPAdapterFaceID", {}),
    "plus v1": ("SD15", PLUS[768], "IPAdapterFaceID", {"weight_faceidv2": 1.7}),
    "plus v1, norm average": ("SD15", PLUS[768], "IPAdapterFaceID", {"combine_embeds": "norm average"}),
    "plus v2": ("SD15", PLUS[768], "IPAdapterFaceID", {"weight_faceidv2": 1.7, "v2": True}),
    "plus v2, twice the weight": ("SD15", PLUS[768], "IPAdapterAdvanced", {"weight": 0.6, "v2": True}),
    "plus v2, negative": ("SD15", PLUS[768], "IPAdapterMS",
                          {"weight_faceidv2": 0.5, "v2": True, "image_negative": True}),
    "plus v2, exact": ("SD15", PLUS[768], "IPAdapterFaceID", {"weight_faceidv2": 1.7, "v2": True, "exact": True}),
    "plus v2, frames": ("SD15", PLUS[768], "IPAAdapterFaceIDBatch", {"weight_faceidv2": 1.7, "v2": True}),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_faces(mode: str, analysis: Any) -> None:
    base, layout, id, given = MODES[mode]
    inputs = dict(given)
    v2, is_negative = inputs.pop("v2", False), inputs.pop("image_negative", False)
    is_plus, exact, unfold = "plus" in layout, inputs.get("exact", False), "Batch" in id
    negative = torch.rand(2, 60, 80, 3, generator=torch.Generator().manual_seed(8)) if is_negative else None
    normed, raw, crops = seen(analysis, photos(), 256 if base == "SDXL" else 224)
    patched, *rest = older.call(
        id, model(base), loaded(layout, base, **({"faceidplusv2": True} if v2 else {})), image=photos(),
        image_negative=negative, clip_vision=encoder(), insightface=analysis, **inputs,
    )  # fmt: skip
    assert not rest or float((rest[0] - crops).abs().max()) <= 1e-6
    weight = inputs.get("weight", 1.0)
    features = against = scale = None
    if is_plus:
        features = states(normalised(crops), "penultimate")
        against = black("penultimate", exact) if negative is None else states(normalised(negative), "penultimate")
        scale = inputs.get("weight_faceidv2", 2 * weight) if v2 else None
    source = Said(
        weights(layout, base), features, against, raw if mode == "unnorm" else normed, scale=scale, exact=exact
    )
    made = tokens(source, inputs.get("combine_embeds", "concat"), unfold)
    applied = Application(weights(layout, base), **made, weight=weight, exact=exact)
    compare(f"FaceID {mode}", patched, [applied], base, 3 if unfold else 1)
