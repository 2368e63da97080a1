"""Faces in pictures: found, recognised and cut by insightface, an optional extra. The one file that imports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...ipadapter_core import FaceCrop
from ...ipadapter_core.method.picture import square_around, to_pil
from .. import folders

INSTALL = 'pip install "insightface>=2.1" onnxruntime'
# Squares that the detector looks at, in pixels. A face that fills its picture is only found in a small one.
DETECTION_SIZES = (640, 512, 384, 256, 160)
# A face that its picture's edges cut off is only found with ground around it: this part of a side, on every side.
GROUND = 0.5
RELEASES = "https://github.com/deepinsight/insightface/releases/download/v0.7"
# Of the published models: the files that find faces and that recognise them.
PUBLISHED = {
    "buffalo_l": ("det_10g.onnx", "w600k_r50.onnx"),
    "antelopev2": ("scrfd_10g_bnkps.onnx", "glintr100.onnx"),
}
TASKS = {"detection": "finds faces", "recognition": "recognises faces"}


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture.

    picture: [H, W, 3], 8 bit RGB. box: left, top, right, bottom in pixels. landmarks: [5, 2] in pixels: eyes, nose,
    corners of the mouth. identity: [512], raw.
    """

    picture: np.ndarray
    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    identity: Tensor

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    def cut(self, crop: FaceCrop) -> Tensor:
        """The picture of the face: [size, size, 3] of 0..1. Outside of the picture it is black, as in the training."""
        if crop.kind == "aligned":
            pixels = aligned(self.picture, self.landmarks, crop.size)
        else:
            pixels = np.asarray(square_around(Image.fromarray(self.picture), self.box, crop.size))
        return torch.from_numpy(np.array(pixels)).float() / 255


def aligned(picture: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """The face of a picture [H, W, 3], turned, scaled and moved so that its landmarks lie as ArcFace expects them."""
    from insightface.utils import face_align

    return face_align.norm_crop(picture, landmark=landmarks, image_size=size)


def face_analysis(name: str, provider: str = "CPU") -> Any:
    """insightface's own FaceAnalysis of the models in a folder, as other packs use it; the detector at 640 pixels.

    provider: onnxruntime's, as people call it. Raises ValueError that names what is missing; nothing is downloaded.
    """
    folder = model_folder(name)
    _, errors = _insightface()
    from insightface.app import FaceAnalysis

    execution = f"{'Dml' if provider == 'DirectML' else provider}ExecutionProvider"
    try:
        analysis = FaceAnalysis(name=str(folder), providers=[execution])
    except errors as error:
        raise ValueError(f"the face model {name} in {folder} is damaged: download it again") from error
    analysis.prepare(ctx_id=0, det_size=(DETECTION_SIZES[0],) * 2)
    return analysis


class FaceModel:
    """insightface's detector and ArcFace, on the CPU: half a second for a picture, and no trouble with its GPU builds.

    name: as it is called in the list. Raises ValueError that names what is missing, with its folder.
    """

    def __init__(self, name: str) -> None:
        model_zoo, errors = _insightface()
        self.name = name
        found: dict[str, Any] = {}
        folder = model_folder(name)
        # By content; the usual names only come first, because the other files (landmarks, age) take long to open.
        first = {file for files in PUBLISHED.values() for file in files}
        for path in sorted(folder.glob("*.onnx"), key=lambda path: (path.name not in first, path.name)):
            try:
                model = model_zoo.get_model(str(path), providers=["CPUExecutionProvider"])
            except errors as error:
                raise ValueError(f"{path} is damaged, or no face model: download it again") from error
            found.setdefault(getattr(model, "taskname", ""), model)
            if found.keys() >= TASKS.keys():
                break
        for position, (task, what) in enumerate(TASKS.items()):
            if task not in found:
                file = PUBLISHED[name][position] if name in PUBLISHED else "an .onnx file"
                raise ValueError(f"the face model {name} has no file that {what}: put {file} into {folder}")
        self.detector, self.recogniser = found["detection"], found["recognition"]
        self.detector.prepare(-1, det_thresh=0.5)
        self.recogniser.prepare(-1)

    def faces(self, image: Tensor) -> list[Face]:
        """The faces in a picture [H, W, C] of 0..1, from left to right."""
        picture = np.asarray(to_pil(image))
        bgr = np.ascontiguousarray(picture[..., ::-1])  # what insightface reads
        boxes, landmarks = self._found(bgr)
        faces = [
            Face(picture, tuple(box[:4].tolist()), points, self._identity(bgr, points))
            for box, points in zip(boxes, landmarks)
        ]
        return sorted(faces, key=lambda face: face.box[0])

    def _found(self, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [N, 5] and landmarks [N, 5, 2] in pixels of the picture; outside of it where a face is cut off."""
        boxes, landmarks = self._detected(bgr)
        if not len(boxes):
            grounded, (left, top) = on_ground(bgr)
            boxes, landmarks = self._detected(grounded)
            boxes[:, :4] -= (left, top, left, top)
            landmarks = landmarks - np.array([left, top], np.float32)
        return boxes, landmarks

    def _detected(self, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for size in DETECTION_SIZES:
            boxes, landmarks = self.detector.detect(bgr, input_size=(size, size))
            if len(boxes):
                break
        if landmarks is None:
            raise ValueError(
                f"the detector of {self.name} gives no landmarks, and faces are aligned by them: choose another model"
            )
        return boxes, landmarks

    def _identity(self, bgr: np.ndarray, landmarks: np.ndarray) -> Tensor:
        from insightface.app.common import Face as Found

        identity = torch.from_numpy(self.recogniser.get(bgr, Found(kps=landmarks))).float().flatten()
        if not torch.isfinite(identity).all():
            raise ValueError(f"the face model {self.name} gave NaN: its files are damaged, download them again")
        return identity


def on_ground(picture: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture [H, W, 3] on a larger ground of its mean colour, and left and top of it there, in pixels."""
    height, width = picture.shape[:2]
    top, left = round(height * GROUND), round(width * GROUND)
    ground = np.empty((height + 2 * top, width + 2 * left, 3), picture.dtype)
    ground[:] = picture.mean(axis=(0, 1)).round()
    ground[top : top + height, left : left + width] = picture
    return ground, (left, top)


def _insightface() -> tuple[Any, tuple[type[Exception], ...]]:
    """insightface's models, and what onnxruntime raises for files that are not."""
    try:
        from insightface import model_zoo
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise ValueError(
            f"finding faces needs insightface ({error}): {INSTALL} in ComfyUI's environment, or connect identities"
        ) from error
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return model_zoo, (*kinds, AssertionError)


CHOICES = ("largest", "leftmost", "index", "all")


def chosen(faces: list[Face], choice: str, index: int, where: str) -> list[Face]:
    """The faces that are meant, of one picture's from left to right. `where` names the picture.

    Raises ValueError when there is none of that index.
    """
    if not faces:
        return []
    if choice == "all":
        return faces
    if choice == "largest":
        return [max(faces, key=lambda face: face.area)]
    if choice == "leftmost":
        return faces[:1]
    if choice != "index":
        raise ValueError(f"unknown choice of faces {choice!r}: choose one of {', '.join(CHOICES)}")
    if index >= len(faces):
        count = f"{len(faces)} face{'s' * (len(faces) > 1)}"
        raise ValueError(
            f"{where} has {count}, and face {index} was asked for (0 is the leftmost): choose at most {len(faces) - 1}"
        )
    return [faces[index]]


MISSING = ("skip", "repeat the last")


def faces_of(image: Tensor, model: FaceModel, choice: str, index: int, missing: str) -> tuple[list[Face], list[int]]:
    """The chosen faces of pictures [B, H, W, C], and the numbers of the pictures without one, from 0.

    missing: these are left out ("skip"), or have the faces of the last picture before them that has some, the first
    ones those of the next ("repeat the last"), so that frames keep their places.
    Raises ValueError when no picture has a face.
    """
    count = len(image)
    names = [f"picture {number + 1} of {count}" if count > 1 else "the picture" for number in range(count)]
    found = [chosen(model.faces(picture), choice, index, name) for picture, name in zip(image, names)]
    without = [number for number, faces in enumerate(found) if not faces]
    if len(without) == count:
        where = f"any of {count} pictures" if count > 1 else "the picture"
        raise ValueError(
            f"no face was found in {where}: use a picture where a face is larger, less turned and not covered"
        )
    if missing == "repeat the last":
        last = next(faces for faces in found if faces)
        found = [last := faces or last for faces in found]
    elif missing != "skip":
        raise ValueError(f"unknown choice {missing!r} for pictures without a face: choose one of {', '.join(MISSING)}")
    return [face for faces in found for face in faces], without


def face_models() -> list[str]:
    """The published models, and others whose folders are there."""
    return [*PUBLISHED, *(name for name in folders.face_model_names() if name not in PUBLISHED)]


def model_folder(name: str) -> Path:
    """The folder of a face model. Raises ValueError that names the folder and the files that belong there."""
    files = " and ".join(PUBLISHED.get(name, ("its .onnx files",)))
    address = f" of {RELEASES}/{name}.zip" if name in PUBLISHED else ""
    return folders.face_model_folder(name, files + address)
