"""Encode Faces on insightface itself: a real photo with given landmarks, and models of the true signature."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import host
from tests.support.refusals import refusal
from tools import face_models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

PARTS = ("prompts.insight", "forms.encode_faces", "prompts.protocol", "folders")
faces, encode_faces, protocol, folders = (host.part(f"nodes.{name}") for name in PARTS)
core = host.part("ipadapter_core")

import cv2  # noqa: E402
import insightface  # noqa: E402
from insightface.app import FaceAnalysis  # noqa: E402
from insightface.utils import face_align  # noqa: E402

PHOTO = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
# Of the six people in it: eyes, nose, corners of the mouth, measured by hand.
LANDMARKS = np.array([
    [[85, 330], [128, 308], [113, 338], [118, 365], [145, 352]],
    [[288, 212], [325, 192], [305, 220], [315, 247], [340, 235]],
    [[488, 318], [543, 330], [508, 352], [487, 375], [530, 385]],
    [[762, 385], [815, 385], [785, 418], [768, 440], [806, 445]],
    [[918, 118], [955, 112], [925, 145], [935, 172], [955, 168]],
    [[1150, 325], [1200, 325], [1170, 350], [1155, 372], [1192, 370]],
], np.float32)  # fmt: skip
# ArcFace's own places of them in a picture of 112 (arXiv 1801.07698); in 128 they are 8 to the right.
PLACES = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


def photo() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB"))


def image() -> torch.Tensor:
    return torch.from_numpy(photo().copy())[None].float() / 255


def given(number: int, box: tuple[float, ...] = (0, 0, 1, 1)) -> Any:
    return faces.Face(photo(), box, LANDMARKS[number], torch.zeros(512))


def similarity(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The similarity [2, 3] that takes points nearest to places, by least squares on its four numbers."""
    x, y = points.T.astype(np.float64)
    zero, one = np.zeros_like(x), np.ones_like(x)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, right, down = np.linalg.lstsq(system, np.concatenate([places[:, 0], places[:, 1]]), rcond=None)[0]
    return np.array([[a, -b, right], [b, a, down]])


@pytest.mark.parametrize("size", [112, 224, 256])
def test_alignment_of_the_real_photo(size: int) -> None:
    """Against insightface's norm_crop on BGR, and against a similarity of our own."""
    worst, worst_place = 0.0, 0.0
    for number, landmarks in enumerate(LANDMARKS):
        ours = (given(number).cut(core.FaceCrop("aligned", size)) * 255).numpy()
        theirs = face_align.norm_crop(photo()[..., ::-1], landmark=landmarks, image_size=size)[..., ::-1]
        assert ours.shape == (size, size, 3) and ours.std() > 20
        worst = max(worst, float(np.abs(ours - theirs).max()))
        scale, right = (size / 112, 0) if size % 112 == 0 else (size / 128, 8)
        matrix = similarity(landmarks, (PLACES + np.array([right, 0])) * scale)
        warped = cv2.warpAffine(photo(), matrix, (size, size))
        worst_place = max(worst_place, float(np.abs(ours - warped.astype(np.float32)).mean()))
    print(f"{size} px, six faces: {worst:.1f} of 255 from norm_crop; mean {worst_place:.4f} of 255 from our similarity")
    assert worst == 0
    assert worst_place < 0.05


@pytest.mark.parametrize(
    "box", [(100, 200, 436, 536), (100, 200, 300, 500), (0, 0, 120, 40), (1200, 700, 1270, 880)], ids=str
)
def test_box_crops(box: tuple[int, ...]) -> None:
    """The square with the longer side around the same middle, black outside of the picture."""
    ours = (given(0, box).cut(core.FaceCrop("box", 336)) * 255).round().numpy()
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    x, y = (left + right - side) // 2 + 400, (top + bottom - side) // 2 + 400
    padded = np.pad(photo(), ((400, 400), (400, 400), (0, 0)))
    square = Image.fromarray(padded[y : y + side, x : x + side])
    expected = np.asarray(square.resize((336, 336), Image.Resampling.BICUBIC))
    assert np.array_equal(ours, expected)


@pytest.fixture
def root(folder: Path) -> Path:
    """An empty models/insightface."""
    return folder / "insightface"


def write(folder: Path, in_the_middle: bool = False) -> None:
    """A face model's files, with others that are in the published ones too."""
    face_models.detector(folder / "det_10g.onnx", in_the_middle=in_the_middle)
    face_models.recogniser(folder / "w600k_r50.onnx")


def test_faces_and_identities_are_insightfaces_own(root: Path, capsys: Any) -> None:
    """On the real photo, with random models: the same as through insightface's FaceAnalysis."""
    write(root / "models" / "buffalo_l")
    analysis = FaceAnalysis("buffalo_l", root=str(root), providers=["CPUExecutionProvider"])
    analysis.prepare(-1, det_size=(640, 640))
    theirs = sorted(analysis.get(np.ascontiguousarray(photo()[..., ::-1])), key=lambda face: face.bbox[0])
    ours = faces.FaceModel("buffalo_l").faces(image()[0])
    capsys.readouterr()
    assert len(ours) == len(theirs) > 3
    for our, their in zip(ours, theirs):
        assert np.array_equal(our.box, their.bbox)
        assert np.array_equal(our.landmarks, their.kps)
        assert np.array_equal(our.identity.numpy(), their.embedding)
    prompt = encode(root, faces="all")[0]
    for kind, attribute in (("normed", "normed_embedding"), ("raw", "embedding")):
        spec = spec_of("FaceID", kind)
        given_to_adapter = protocol.given_of(prompt, spec, "a")[0].identities
        expected = torch.from_numpy(np.stack([getattr(face, attribute) for face in theirs]))
        difference = (given_to_adapter - expected).abs().max().item()
        print(f"{len(ours)} faces, {kind} identities: largest difference {difference:.1e}")
        assert difference <= 1e-7


def spec_of(family: str, identity: str) -> Any:
    return core.AdapterSpec(family, None, 0, 768, 4, (1,), core.IdentityProjection(1024), identity=identity)


def encode(root: Path, **settings: Any) -> Any:
    defaults = {"face_model": "buffalo_l", "faces": "largest", "index": 0, "average": False, "image": image()}
    with torch.inference_mode():
        return encode_faces.EncodeFaces.execute(**(defaults | settings)).result


@pytest.mark.parametrize(
    "layout", ["models/buffalo_l", "buffalo_l", "models/buffalo_l/buffalo_l", "buffalo_l/buffalo_l"]
)
def test_layouts_of_folders(root: Path, layout: str) -> None:
    write(root / layout)
    assert faces.face_models()[0] == "buffalo_l"
    assert len(encode(root)[1]) == 1


def test_files_are_known_by_their_content(root: Path) -> None:
    """Any names; a model of one's own is listed."""
    face_models.recogniser(root / "mine" / "1.onnx")
    face_models.detector(root / "mine" / "2.onnx")
    assert "mine" in faces.face_models()
    assert len(encode(root, face_model="mine")[1]) == 1


def test_choices(root: Path) -> None:
    write(root / "buffalo_l")
    found = faces.FaceModel("buffalo_l").faces(image()[0])
    lefts = [face.box[0] for face in found]
    assert lefts == sorted(lefts)
    largest = max(range(len(found)), key=lambda n: found[n].area)
    for choice, index, expected in (
        ("largest", 0, [largest]), ("leftmost", 0, [0]), ("index", 2, [2]), ("all", 0, range(len(found)))
    ):  # fmt: skip
        prompt, aligned, box = encode(root, faces=choice, index=index)
        assert torch.equal(prompt.identities(), torch.stack([found[n].identity for n in expected]))
        assert aligned.shape == (len(expected), 256, 256, 3) and box.shape == (len(expected), 336, 336, 3)
    two = torch.cat([image(), image().flip(2)])
    assert encode(root, image=two)[0].identities().shape == (2, 512)
    average = encode(root, image=two, average=True)[0].identities()
    assert torch.allclose(average, encode(root, image=two)[0].identities().mean(0, keepdim=True))


def test_what_each_family_sees(root: Path) -> None:
    """The crops that adapters ask for are those that are cut, at their sizes."""
    write(root / "buffalo_l", in_the_middle=True)
    (face,) = faces.FaceModel("buffalo_l").faces(image()[0])
    prompt = encode(root)[0]
    for crop in (core.FaceCrop("aligned", 224), core.FaceCrop("aligned", 256), core.FaceCrop("box", 336)):
        assert torch.equal(prompt.crops(crop)[0], face.cut(crop))


def refuse(*words: str, **settings: Any) -> None:
    with refusal(*words):
        encode(Path(), **settings)


def test_missing_and_damaged_models(root: Path) -> None:
    refuse("antelopev2 was not found", str(root / "models" / "antelopev2"), "glintr100.onnx", face_model="antelopev2")
    refuse("../x", "was not found", face_model="../x")
    folder = root / "models" / "buffalo_l"
    face_models.detector(folder / "det_10g.onnx")
    refuse("no file that recognises faces", "w600k_r50.onnx", str(folder))
    (folder / "w600k_r50.onnx").write_bytes(b"<html>")
    refuse("w600k_r50.onnx is damaged")
    (folder / "w600k_r50.onnx").write_bytes(b"")
    refuse("w600k_r50.onnx is damaged")
    face_models.recogniser(folder / "w600k_r50.onnx")
    refuse("no face was found in the picture", image=torch.full((1, 64, 64, 3), 0.5))
    square = image()[0, :640, :640]
    assert len(encode(root, image=torch.stack([square, torch.full_like(square, 0.5)]))[1]) == 1
    refuse("no face was found in any of 2 pictures", image=torch.full((2, 64, 64, 3), 0.5))
    face_models.detector(folder / "det_10g.onnx", in_the_middle=True)
    refuse("the picture has 1 face, and face 1 was asked for (0 is the leftmost)", faces="index", index=1)
    refuse("the pictures have no pixels", image=torch.zeros(1, 0, 8, 3))
    face_models.detector(folder / "det_10g.onnx", has_landmarks=False)
    refuse("gives no landmarks")


def frames(root: Path) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Six frames, the first, the third and the last two even grey, which has no face; the faces of the others."""
    write(root / "buffalo_l")
    photos = [image()[0, :400, :400], image()[0, :400, -400:]]
    grey = torch.full_like(photos[0], 0.5)
    model = faces.FaceModel("buffalo_l")
    largest = [max(model.faces(one), key=lambda face: face.area).identity for one in photos]
    return torch.stack([grey, photos[0], grey, photos[1], grey, grey]), largest


def test_frames_without_a_face_are_skipped_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    film, (first, second) = frames(root)
    with caplog.at_level("WARNING"):
        prompt, aligned, box = encode(root, image=film)
    print(f"\n{caplog.messages}")
    assert caplog.messages == ["Encode Faces: no face in pictures 1, 3, 5, 6 of 6: skipped"]
    assert torch.equal(prompt.identities(), torch.stack([first, second])) and len(aligned) == len(box) == 2


def test_frames_keep_their_places_where_faces_are_repeated(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    film, (first, second) = frames(root)
    prompt, aligned, _ = encode(root, image=film, missing="repeat the last")
    assert torch.equal(prompt.identities(), torch.stack([first, first, first, second, second, second]))
    assert len(aligned) == 6 and "the last face is repeated" in caplog.text
    caplog.clear()
    assert len(encode(root, image=film[1:2], missing="repeat the last")[1]) == 1 and not caplog.messages
    refuse("unknown choice 'no' for pictures without a face: choose one of skip", image=film, missing="no")
    refuse("no face was found in any of 2 pictures", image=film[4:], missing="repeat the last")


def test_a_face_that_fills_its_picture(root: Path) -> None:
    """A detector that wants ground around a face finds it on a larger one; box, points and crops are the picture's."""
    write(root / "buffalo_l", in_the_middle=True)
    detector = faces.FaceModel("buffalo_l").detector
    face_models.detector(root / "buffalo_l" / "det_10g.onnx", in_the_middle=True, on_grey_ground=True)
    picture = np.zeros((200, 120, 3), np.uint8)
    picture[:, :60] = 255  # the corner is white, and the mean grey
    (face,) = faces.FaceModel("buffalo_l").faces(torch.from_numpy(picture) / 255)
    grounded = np.full((400, 240, 3), picture.mean().round(), np.uint8)
    grounded[100:300, 60:180] = picture
    boxes, points = detector.detect(grounded, input_size=(640, 640))
    assert len(boxes) == 1
    expected = boxes[0, :4] - np.array([60, 100, 60, 100])
    print(f"\nbox {np.round(face.box, 1)}, in the larger picture {np.round(boxes[0, :4], 1)}")
    assert np.abs(np.array(face.box) - expected).max() <= 1e-3
    assert np.abs(face.landmarks - (points[0] - np.array([60, 100]))).max() <= 1e-3
    assert face.picture.shape == (200, 120, 3)
    outside = faces.Face(picture, (-40.0, -40.0, 60.0, 60.0), face.landmarks, face.identity)
    cut = outside.cut(core.FaceCrop("box", 100))
    assert cut[:39].max() == 0 and cut[:, :39].max() == 0 and cut[42:, 42:].max() == 1


def test_without_insightface(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "buffalo_l")
    monkeypatch.setitem(sys.modules, "insightface", None)
    refuse("needs insightface", "pip install", "or connect identities")
    assert torch.equal(encode(root, image=None, identities=torch.ones(512))[0].identities(), torch.ones(1, 512))


@pytest.mark.parametrize("shape", [(512,), (3, 512), (3, 1, 512)], ids=str)
def test_identities_of_other_packs(root: Path, shape: tuple[int, ...]) -> None:
    """Tensors, arrays and lists of them; pictures beside them are their faces, cut already."""
    value = torch.randn(shape)
    expected = value.reshape(-1, 512)
    for given_value in (value, value.numpy(), [value], (value.half(),)):
        prompt, aligned, _ = encode(root, image=None, identities=given_value)
        assert torch.allclose(prompt.identities(), expected, atol=2e-3)
        assert aligned.shape == (1, 64, 64, 3)
    prompt, aligned, box = encode(root, identities=value)
    assert aligned.shape == (len(expected), 256, 256, 3) and box.shape == (len(expected), 336, 336, 3)


NO_IDENTITY = {
    "width": (torch.zeros(2, 1024), "(2, 1024)"),
    "dict": ({"embedding": 1}, "dict"),
    "empty": ([], "nothing"),
    "text": ("text", "str"),
    "NaN": (torch.full((1, 512), float("nan")), "NaN"),
}


@pytest.mark.parametrize(("value", "words"), NO_IDENTITY.values(), ids=NO_IDENTITY)
def test_what_is_no_identity(root: Path, value: Any, words: str) -> None:
    refuse(words, image=None, identities=value)


def test_nothing_connected(root: Path) -> None:
    refuse("neither pictures nor identities", image=None)
    refuse("3 identities and 2 pictures", image=image().repeat(2, 1, 1, 1), identities=torch.zeros(3, 512))
