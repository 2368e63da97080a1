"""`python -m trainer faces` on insightface itself: a real photo, and models of the true signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import needs

insightface = needs.module("insightface")
face_models = needs.module("tools.face_models")

from insightface.app import FaceAnalysis  # noqa: E402
from insightface.utils import face_align  # noqa: E402

from trainer.__main__ import main  # noqa: E402
from trainer.data.identity import read_identity  # noqa: E402
from trainer.data.sources import open_source  # noqa: E402
from trainer.settings.config import DataConfig  # noqa: E402

pytestmark = pytest.mark.slow

PHOTO = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "random"
    face_models.detector(folder / "det_10g.onnx")
    face_models.recogniser(folder / "w600k_r50.onnx")
    return folder


def write_photos(folder: Path) -> Path:
    """The photo, its left half, and a file that is no picture."""
    folder.mkdir()
    with Image.open(PHOTO) as photo:
        photo.save(folder / "whole.png")
        photo.crop((0, 0, photo.width // 2, photo.height)).save(folder / "half.png")
    (folder / "broken.png").write_bytes(b"no picture")
    names = ("whole", "half", "broken")
    rows = [{"image_file": f"{name}.png", "text": [f"a {name} photo", name]} for name in names]
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def largest(folder: Path, picture: np.ndarray[Any, Any]) -> Any:
    """insightface's own answer."""
    analysis = FaceAnalysis(str(folder), providers=["CPUExecutionProvider"])
    analysis.prepare(-1)
    faces = analysis.get(np.ascontiguousarray(picture[..., ::-1]))
    return max(faces, key=lambda face: (face.bbox[2] - face.bbox[0]) * (face.bbox[3] - face.bbox[1]))


@pytest.mark.parametrize("crop", ["aligned", "box"])
def test_the_list_can_be_trained_on(crop: str, models: Path, tmp_path: Path, capsys: Any) -> None:
    source, out = write_photos(tmp_path / "photos"), tmp_path / "made" / "faces.jsonl"
    assert main(["faces", str(source), str(out), "--model", str(models), "--crop", crop, "--size", "224"]) == 0
    assert "2 faces" in capsys.readouterr().out
    (fault,) = [json.loads(line) for line in (tmp_path / "made" / "faces_skipped.jsonl").read_text().splitlines()]
    assert (fault["name"], fault["kind"]) == ("broken.png", "corrupt")
    made = open_source(DataConfig(source=str(out), condition_column="face", identity_column="identity"))
    assert len(made) == 2
    for index in range(2):
        sample = made.read(index)
        picture = np.asarray(Image.open(sample.image).convert("RGB"))
        face = largest(models, picture)
        assert np.array_equal(read_identity(sample.identity).numpy(), face.embedding)
        cut = np.asarray(Image.open(sample.condition))
        assert cut.shape == (224, 224, 3) and cut.std() > 5
        if crop == "aligned":
            assert np.array_equal(cut, face_align.norm_crop(picture, landmark=face.kps, image_size=224))
        assert sample.captions[1] in ("whole", "half")


def test_what_is_missing_is_named(models: Path, tmp_path: Path, capsys: Any) -> None:
    source, out = write_photos(tmp_path / "photos"), tmp_path / "faces.jsonl"
    nowhere = tmp_path / "nowhere"
    assert main(["faces", str(source), str(out), "--model", str(nowhere)]) == 1
    assert f"there are no face models in {nowhere}" in capsys.readouterr().err
    (models / "w600k_r50.onnx").unlink()
    assert main(["faces", str(source), str(out), "--model", str(models)]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    print(f"\n{message}")
    assert "has no model that recognises faces" in message
    assert not out.exists()
