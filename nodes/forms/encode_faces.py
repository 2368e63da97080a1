"""Encode Faces: pictures of people, or identities that are known already, as an image prompt."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ...ipadapter_core import FaceCrop
from ...ipadapter_core.method.picture import encoder_views
from ...ipadapter_core.method.spec import IDENTITY_DIM
from .. import folders
from ..prompts.combined import CombinedPrompt
from ..prompts.faces import FacePrompt
from ..prompts.insight import CHOICES, MISSING, Face, FaceModel, face_models, faces_of, model_folder
from ..sockets import FACES, MAX_SHOWN, Form, PromptType, say, shown

ALIGNED, BOX = FaceCrop("aligned", 256), FaceCrop("box", 336)  # what is shown


def found_faces(image: Tensor, model: FaceModel, choice: str, index: int, missing: str) -> list[Face]:
    """The chosen faces of the pictures [B, H, W, C]; pictures without one are named in the log and on the node.

    Raises ValueError when no picture has one.
    """
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(
            f"the pictures have no pixels (shape {tuple(image.shape)}): expected [batch, height, width, 3]"
        )
    found, without = faces_of(image, model, choice, index, missing)
    if without:
        text = absent(without, len(image), missing)
        logging.warning("Encode Faces: %s", text)
        say(text)
    return found


def absent(without: list[int], count: int, missing: str) -> str:
    """What is said of pictures without a face, by their numbers from 0."""
    numbers = ", ".join(str(number + 1) for number in without)
    done = "skipped" if missing == MISSING[0] else "the last face is repeated"
    return f"no face in picture{'s' * (len(without) > 1)} {numbers} of {count}: {done}"


def known_identities(value: Any) -> Tensor:
    """Identities [P, 512] from a tensor or array of any pack: [512], [P, 512], [P, 1, 512], or a list of such.

    Raises ValueError when it is not one.
    """
    parts = value if isinstance(value, list | tuple) else [value]
    tensors = [torch.as_tensor(part) for part in parts if isinstance(part, Tensor | np.ndarray)]
    if not tensors or len(tensors) < len(parts) or any(part.shape[-1:] != (IDENTITY_DIM,) for part in tensors):
        shapes = ", ".join(str(tuple(getattr(part, "shape", ())) or type(part).__name__) for part in parts)
        raise ValueError(f"identities are {shapes or 'nothing'}, expected a tensor [faces, {IDENTITY_DIM}] of ArcFace")
    identities = torch.cat([part.float().cpu().reshape(-1, IDENTITY_DIM) for part in tensors])
    if not torch.isfinite(identities).all():
        raise ValueError("the identities have NaN or infinite values: make them again")
    return identities


def given_crops(image: Tensor, count: int) -> Any:
    """Pictures that are faces already, for given identities: the same for every kind of crop, resized."""
    if len(image) not in (1, count):
        raise ValueError(f"{count} identities and {len(image)} pictures: connect one picture for each, or none")
    return lambda crop: encoder_views(image, crop.size).expand(count, -1, -1, -1)


class EncodeFaces(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptEncodeFaces",
            display_name="Encode Faces",
            category=FACES,
            description="Turns faces into an image prompt for FaceID adapters, and for those of Kolors. The face "
            "models of insightface, and the adapters trained on them, are for non-commercial research only.",
            search_aliases=["face", "faceid", "face id", "IPAdapter FaceID", "insightface", "identity", "character"],
            has_intermediate_output=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "image", optional=True,
                    tooltip="Pictures of people. Where identities are connected: pictures of their faces, cut already.",
                ),
                io.Combo.Input(
                    "face_model", options=face_models(), default="buffalo_l",
                    tooltip="A folder in models/insightface/models. FaceID adapters were trained on buffalo_l, Kolors' "
                    "on antelopev2.",
                ),
                io.Combo.Input(
                    "faces", options=list(CHOICES), default=CHOICES[0],
                    tooltip="Which faces of each picture count: the largest, the leftmost, one by its index, or all.",
                ),
                io.Int.Input(
                    "index", default=0, min=0, max=63,
                    tooltip="For 'index': which face, counted from the left; 0 is the leftmost.",
                ),
                io.Boolean.Input(
                    "average", default=False,
                    tooltip="Take all faces as pictures of one person, and use their mean. Neutral: off.",
                ),
                io.ClipVision.Input(
                    "encoder", optional=True,
                    tooltip="For adapters that see the face as well (FaceID plus, plus-face, Kolors): their image "
                    "encoder. Not needed for FaceID and FaceID portrait.",
                ),
                io.AnyType.Input(
                    "identities", optional=True,
                    tooltip="ArcFace identities that are known already, as a tensor [faces, 512] of any pack; no face "
                    "model is needed then. As the face model gives them, not cut to length one.",
                ),
                io.Combo.Input(
                    "missing", options=list(MISSING), default=MISSING[0], optional=True, advanced=True,
                    tooltip="What becomes of pictures without a face: 'skip' (neutral) leaves them out, 'repeat the "
                    "last' takes the face before, so that there is one for each frame of a film.",
                ),
            ],
            outputs=[
                PromptType.Output(display_name="image prompt"),
                io.Image.Output(display_name="aligned", tooltip="The faces as FaceID plus sees them."),
                io.Image.Output(display_name="box", tooltip="The faces as plus-face and Kolors see them."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, face_model: str, **_: Any) -> Any:
        # Identities that are linked are not known yet, and with them no face model is needed.
        try:
            return folders.fingerprint(model_folder(face_model))
        except ValueError:
            return "no face model"

    @classmethod
    def execute(
        cls, face_model: str, faces: str, index: int, average: bool, image: Tensor | None = None, encoder: Any = None,
        identities: Any = None, missing: str = MISSING[0],
    ) -> io.NodeOutput:  # fmt: skip
        if identities is not None:
            known = known_identities(identities)
            crops = None if image is None else given_crops(image, len(known))
        elif image is not None:
            found = found_faces(image, FaceModel(face_model), faces, index, missing)
            known = torch.stack([face.identity for face in found])
            crops = lambda crop: torch.stack([face.cut(crop) for face in found])  # noqa: E731
        else:
            raise ValueError("Encode Faces has neither pictures nor identities: connect one of them")
        prompt: Any = FacePrompt(known, crops, encoder)
        views = [torch.ones(1, 64, 64, 3) if crops is None else crops(crop) for crop in (ALIGNED, BOX)]
        preview = None if crops is None else shown([face for view in views for face in view[: MAX_SHOWN // 2]])
        return io.NodeOutput(CombinedPrompt((prompt,), "average") if average else prompt, *views, ui=preview)
