"""`python -m trainer faces`: identities and crops of the faces in a dataset, by insightface, an optional extra."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ipadapter_core.files.whole import whole
from ipadapter_core.method.picture import square_around

from ..data.batch import Skipped
from ..data.pictures import Unusable, decode
from ..data.record import Record, UnreadableError
from ..data.report import json_line, write_report
from ..data.sources import open_source
from ..settings.config import DataConfig
from ..settings.ranges import FROM_ONE, check_number

Crop = Callable[[Image.Image, Any, int], Image.Image]


def run_faces(options: argparse.Namespace) -> int:
    """The command: the list OUT, a folder beside it with crops and identities, and a report of what is left out.

    The largest face of a picture is taken. Raises ValueError when insightface, its models or the pictures are missing.
    """
    check_number("--size", options.size, FROM_ONE)
    analysis = load_models(options.model)
    out = Path(options.out)
    folder, report = out.with_name(f"{out.stem}_faces"), out.with_name(f"{out.stem}_skipped.jsonl")
    source = open_source(DataConfig(source=str(options.data), pictures=options.pictures))
    lines, faults = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in tqdm(range(len(source)), desc="faces", unit="picture", dynamic_ncols=True):
            try:
                record = source.read(index)
            except UnreadableError as fault:
                faults.append(fault.skipped)
                continue
            found = find_face(record, analysis)
            if isinstance(found, Unusable):
                faults.append(Skipped(record.name, found.kind, found.reason))
                continue
            picture, face = found
            place = folder / f"{index:08d}"
            CROPS[options.crop](picture, face, options.size).save(place.with_suffix(".png"))
            np.save(place.with_suffix(".npy"), face.embedding.astype(np.float32))
            lines.append(row(record, place, out.parent))
        with whole(out) as part:
            part.write_text("".join(lines), encoding="utf-8")
        write_report(report, faults)
    except OSError as error:
        raise ValueError(f"{error.filename or out} cannot be written ({error.strerror}): give another OUT") from error
    print(f"{out}: {len(lines):,} faces with their crops and identities in {folder}")
    print(f"{len(faults):,} pictures left out, named in {report}")
    return 0


def load_models(name: str) -> Any:
    """insightface's detector and ArcFace of a folder. Raises ValueError when either is missing; nothing is fetched."""
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise ValueError(
            f'finding faces needs insightface ({error}): pip install "insightface>=2.1" onnxruntime, '
            "or give identities that are computed elsewhere"
        ) from error
    folder = Path(name).expanduser()
    if not any(folder.glob("*.onnx")):
        raise ValueError(
            f"there are no face models in {folder}: give --model a folder of buffalo_l's or antelopev2's files"
        )
    analysis = FaceAnalysis(str(folder), allowed_modules=["detection", "recognition"])
    if "recognition" not in analysis.models:
        raise ValueError(f"{folder} has no model that recognises faces: add w600k_r50.onnx or glintr100.onnx")
    analysis.prepare(0)
    return analysis


def find_face(record: Record, analysis: Any) -> tuple[Image.Image, Any] | Unusable:
    """A record's picture and its largest face as insightface gives it; or why there is none."""
    if not isinstance(record.image, Path):
        raise ValueError("faces reads a list or a folder of pictures: unpack the shards or the dataset first")
    picture = decode(record.image)
    if isinstance(picture, Unusable):
        return picture
    faces = analysis.get(np.ascontiguousarray(np.asarray(picture)[..., ::-1]))  # insightface reads BGR
    if not faces:
        return Unusable("no face", "no face was found in it")
    return picture, max(faces, key=lambda face: np.prod(face.bbox[2:] - face.bbox[:2]))


def aligned(picture: Image.Image, face: Any, size: int) -> Image.Image:
    """Turned, scaled and moved so that the landmarks lie as ArcFace expects them: what FaceID plus sees."""
    from insightface.utils import face_align

    return Image.fromarray(face_align.norm_crop(np.asarray(picture), landmark=face.kps, image_size=size))


def box(picture: Image.Image, face: Any, size: int) -> Image.Image:
    """The square around the face's box, black outside of the picture: for plus-face and full-face."""
    return square_around(picture, tuple(face.bbox.tolist()), size)


CROPS: dict[str, Crop] = {"aligned": aligned, "box": box}


def row(record: Record, place: Path, folder: Path) -> str:
    """One line of the list; names of files are relative to the list's folder."""
    assert isinstance(record.image, Path)
    face, identity = (os.path.relpath(place.with_suffix(suffix), folder) for suffix in (".png", ".npy"))
    captions = record.captions[0] if len(record.captions) == 1 else list(record.captions)
    values = {"image_file": os.path.relpath(record.image, folder), "text": captions, "face": face, "identity": identity}
    return json_line(values)
