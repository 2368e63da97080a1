"""The older face nodes with insightface's own FaceAnalysis on random models: which face, which crop, no LoRA."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import clip_models, host, model_folders, models, older, published
from tools import face_models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
import insightface  # noqa: E402
from insightface.utils import face_align  # noqa: E402

PHOTO = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with model_folders.empty_folders(tmp_path_factory.mktemp("models")) as root:
        folder = root / "insightface" / "models" / "buffalo_l"
        face_models.detector(folder / "det_10g.onnx")
        face_models.recogniser(folder / "w600k_r50.onnx")
        yield older.call("IPAdapterInsightFaceLoader", "CPU", "buffalo_l")[0]


def photo() -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(PHOTO).convert("RGB")).copy())[None].float() / 255


@functools.cache
def weights(layout: str, base: str = "SD15") -> dict[str, Any]:
    """A published layout with the layers of the small model."""
    known = published.filled({k: v for k, v in published.LAYOUTS[layout].items() if k.startswith("image_proj.")})
    layers = models.adapter_weights("base", older.model(base))
    return older.nested(known | {key: value for key, value in layers.items() if key.startswith("ip_adapter.")})


@functools.cache
def encoder(name: str = "ViT-H-14") -> Any:
    config = clip_models.vision_config(name, layers=2)
    return older.encoders.build_encoder(clip_models.random_weights(config))


def applied(analysis: Any, layout: str, base: str = "SD15", id: str = "IPAdapterFaceID", **inputs: Any) -> Any:
    shape = dict(weights(layout, base))
    shape |= {key: True for key in ("faceidplusv2",) if inputs.pop("is_v2", False)}
    given = {"clip_vision": encoder("ViT-L-14-336" if base == "Kolors" else "ViT-H-14"), "insightface": analysis}
    return older.call(id, older.model(base), shape, image=photo(), **given | inputs)


def test_the_surest_face_and_its_crop(analysis: Any) -> None:
    """Face 0 of insightface's own list, cut from the picture in 8 bits that are cut off."""
    _, crops = applied(analysis, "FaceID portrait SD1.5", weight=0.5)
    bgr = np.ascontiguousarray((photo()[0] * 255).to(torch.uint8).numpy()[..., ::-1])
    analysis.det_model.prepare(0, input_size=(640, 640))
    faces = analysis.get(bgr)
    assert len(faces) > 1 and faces[0].det_score == max(face.det_score for face in faces)
    wanted = face_align.norm_crop(bgr, landmark=faces[0].kps, image_size=224)[..., ::-1]
    worst = float((crops[0] * 255 - torch.from_numpy(wanted.copy()).float()).abs().max())
    print(f"{len(faces)} faces; {worst:.1e} of 255 from the crop of the surest one")
    assert crops.shape == (1, 224, 224, 3) and worst < 1e-4


@pytest.mark.parametrize("layout", ["FaceID portrait SD1.5", "FaceID plus v1 and v2 SD1.5"])
def test_faces_change_the_prediction(analysis: Any, layout: str) -> None:
    one, _ = applied(analysis, layout)
    changed = older.changed(one)
    if "plus" in layout:
        two, _ = applied(analysis, layout, is_v2=True, weight_faceidv2=2.0)
        assert not torch.equal(changed, older.changed(two))
    batch, crops = applied(analysis, layout, id="IPAAdapterFaceIDBatch", weight=[1.0, 0.5])
    assert len(crops) == 1
    older.changed(batch, 2)


def test_kolors_with_the_projection_of_its_unet(analysis: Any) -> None:
    one, crops = applied(analysis, "Kolors FaceID plus", "Kolors", "IPAdapterFaceIDKolors", weight_kolors=0.5)
    assert crops.shape == (1, 336, 336, 3)
    two, _ = applied(analysis, "Kolors FaceID plus", "Kolors", "IPAdapterFaceIDKolors", weight_kolors=1.0)
    assert not torch.equal(older.changed(one, 1, "Kolors"), older.changed(two, 1, "Kolors"))


def test_the_lora_inside_of_a_file_stays_off(analysis: Any) -> None:
    _, sites = host.part("nodes.hosts").host_of(older.model())
    unet = older.model().model.diffusion_model
    widths = {site.index: unet.get_submodule(site.comfyui).to_k.out_features for site in sites}
    shape = weights("FaceID SD1.5")
    lora = older.nested({**published.filled(published.lora(768, widths, rank=4)), "image_proj.none": torch.zeros(1)})
    with_lora = {**shape, "ip_adapter": shape["ip_adapter"] | lora["ip_adapter"]}
    found, _ = older.call("IPAdapterFaceID", older.model(), with_lora, image=photo(), insightface=analysis)
    assert not found.patches and len(lora["ip_adapter"]) == 256


def test_a_picture_without_a_face(analysis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector is asked at every size, from 640 down to 320, and is left as it was."""
    sizes: list[tuple[int, int]] = []
    prepare = analysis.det_model.prepare
    monkeypatch.setattr(
        analysis.det_model,
        "prepare",
        lambda id, input_size: (sizes.append(input_size), prepare(id, input_size=input_size)),
    )
    monkeypatch.setattr(analysis.det_model, "detect", lambda *_, **__: (np.zeros((0, 5)), None))
    with pytest.raises(ValueError, match="no face was found in picture 1"):
        applied(analysis, "FaceID portrait SD1.5")
    assert sizes == [(size, size) for size in (640, 576, 512, 448, 384, 320, 640)]
