"""Who judges: image encoders by name, each from a file or folder, and what each of them gives of pictures.

Shapes: B batch, E width of an embedding. Embeddings have length one and are fp32 on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import Dinov2Model

from ipadapter_core.facts.encoders import Encoder, encoder_pixels
from ipadapter_core.files.encoders import encoder_of_weights
from ipadapter_core.files.read import read_weights

from ..base.encoder import build_visual, load_encoder
from ..sampling.scores import Scorer

Pictures = list[Image.Image]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Clip:
    """CLIP-I, and CLIP-T where it has a text encoder: an open_clip tag or a transformers folder.

    Raises ValueError when it is neither.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        path = Path(name)
        self.has_texts = not path.exists() or (path / "tokenizer_config.json").exists()
        self._scorer = Scorer(name, device) if self.has_texts else None
        self._images = self._scorer.images if self._scorer else load_encoder(name).to(device)
        self._device = device

    @torch.no_grad()
    def embed(self, pictures: Pictures) -> dict[str, Tensor]:
        pixels = self._images.pixels(pictures).to(self._device)
        return {"clip": F.normalize(self._images(pixels, "pooled").float(), dim=-1).cpu()}

    def embed_text(self, text: str) -> Tensor:
        """[E]."""
        assert self._scorer is not None
        return self._scorer.embed_texts([text])[0].float().cpu()


class Dino:
    """DINO-I by the class token of a DINOv2, after its last norm, as transformers' own folder has it.

    Raises ValueError when the folder holds something else.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        folder = Path(name)
        kind = _config(folder, "DINOv2", name).get("model_type")
        if kind != "dinov2":
            raise ValueError(f"{name} holds a model of the kind {kind!r}: for DINO-I give a folder of DINOv2's")
        self._model = Dinov2Model.from_pretrained(folder).float().to(device).eval().requires_grad_(False)
        path = folder / "preprocessor_config.json"
        self._seen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._device = device

    @torch.no_grad()
    def embed(self, pictures: Pictures) -> dict[str, Tensor]:
        pixels = torch.stack([dino_pixels(picture, self._seen) for picture in pictures]).to(self._device)
        states = self._model(pixel_values=pixels).last_hidden_state
        return {"dino": F.normalize(states[:, 0].float(), dim=-1).cpu()}


def dino_pixels(picture: Image.Image, seen: Mapping[str, Any]) -> Tensor:
    """What DINOv2 sees, [3, S, S]: shortest side to 256 (bicubic), the centre of 224, normalised; or as `seen` says."""
    short, crop = seen.get("size", {}).get("shortest_edge", 256), seen.get("crop_size", {})
    height, width = crop.get("height", 224), crop.get("width", 224)
    across, down = (int(short * side / min(picture.size)) for side in picture.size)
    resized = picture.resize((across, down), Image.Resampling(seen.get("resample", Image.Resampling.BICUBIC)))
    left, top = (across - width) // 2, (down - height) // 2
    values = np.asarray(resized.crop((left, top, left + width, top + height)), dtype=np.float32) / 255
    mean, std = (np.float32(seen.get(name, usual)) for name, usual in
                 (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)))  # fmt: skip
    return torch.from_numpy((values - mean) / std).permute(2, 0, 1)


class Style:
    """Style and content by two heads on one CLIP image tower, as CSD has them (arXiv 2404.01292).

    A file of weights with `backbone.*` (a CLIP image tower without its projection), `last_layer_style` and
    `last_layer_content`. Raises ValueError when it is something else.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"there is no style encoder {name}: give a file of CSD's weights")
        weights = _style_weights(path)
        tower = {key.removeprefix("backbone."): value for key, value in weights.items() if key.startswith("backbone.")}
        # the two heads side by side, in the place of CLIP's own projection
        tower["proj"] = torch.cat([weights["last_layer_style"], weights["last_layer_content"]], dim=1)
        self._facts: Encoder = encoder_of_weights(tower)
        self._visual = build_visual(self._facts)
        expected = self._visual.state_dict()
        if missing := sorted(expected.keys() - tower.keys()):
            raise ValueError(f"the style encoder {path.name} lacks the weight {missing[0]}: download it again")
        self._visual.load_state_dict({key: tower[key].float() for key in expected}, assign=True)
        self._visual.to(device).eval().requires_grad_(False)
        self._device = device

    @torch.no_grad()
    def embed(self, pictures: Pictures) -> dict[str, Tensor]:
        pixels = torch.stack([encoder_pixels(picture, self._facts) for picture in pictures]).to(self._device)
        style, content = self._visual(pixels).float().cpu().chunk(2, dim=-1)
        return {"style": F.normalize(style, dim=-1), "content": F.normalize(content, dim=-1)}


class Faces:
    """The identity of the largest face, NaN where there is none. analysis: insightface's detector and ArcFace."""

    def __init__(self, analysis: Any) -> None:
        self._analysis = analysis

    def embed(self, pictures: Pictures) -> dict[str, Tensor]:
        found = []
        for picture in pictures:
            faces = self._analysis.get(np.ascontiguousarray(np.asarray(picture)[..., ::-1]))  # it reads BGR
            best = max(faces, key=lambda face: np.prod(face.bbox[2:] - face.bbox[:2]), default=None)
            found.append(torch.full((512,), float("nan")) if best is None else torch.tensor(best.embedding).float())
        return {"identity": F.normalize(torch.stack(found), dim=-1)}


Judge = Clip | Dino | Style | Faces


class Judges:
    """All judges of a run, by the kind of what they give; each is loaded when it is first used.

    named: kind to the judge's name, a file's, a folder's or a tag. faces: loads insightface's models.
    """

    def __init__(self, named: Mapping[str, str], device: torch.device, faces: Callable[[str], Any]) -> None:
        self.named = {kind: name for kind, name in named.items() if name}
        kinds: dict[str, Callable[[str], Judge]] = {
            "clip": lambda name: Clip(name, device),
            "dino": lambda name: Dino(name, device),
            "style": lambda name: Style(name, device),
            "identity": lambda name: Faces(faces(name)),
        }
        self._load = {kind: (kinds[kind], name) for kind, name in self.named.items()}
        self._there: dict[str, Judge] = {}
        self._texts: dict[str, Tensor] = {}

    def load(self) -> None:
        """All of them now, so that a wrong one is refused before anything is computed."""
        for kind, (load, name) in self._load.items():
            if kind not in self._there:
                self._there[kind] = load(name)

    @property
    def has_texts(self) -> bool:
        self.load()
        clip = self._there.get("clip")
        return isinstance(clip, Clip) and clip.has_texts

    def embed(self, pictures: Pictures) -> dict[str, Tensor]:
        """Pictures to [B, E] by clip, dino, style, content, identity: of those that there are judges for."""
        self.load()
        return {name: value for judge in self._there.values() for name, value in judge.embed(pictures).items()}

    def embed_text(self, text: str) -> Tensor:
        """[E], encoded once."""
        clip = self._there["clip"]
        assert isinstance(clip, Clip)
        if text not in self._texts:
            self._texts[text] = clip.embed_text(text)
        return self._texts[text]


def _config(folder: Path, what: str, name: str) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{name} is no folder with a config.json: give a transformers folder of {what}")
    return json.loads(path.read_text(encoding="utf-8"))


def _style_weights(path: Path) -> dict[str, Tensor]:
    """By the names after any prefix (model_state_dict., module.)."""
    names, found = ("backbone.", "last_layer_style", "last_layer_content"), {}
    for key, value in read_weights(path).tensors.items():
        place = min((key.find(name) for name in names if name in key), default=-1)
        if place >= 0 and key[place:].removeprefix("backbone.") != "proj":
            found[key[place:]] = value
    if missing := [name for name in names if not any(key.startswith(name) for key in found)]:
        raise ValueError(
            f"{path.name} has no {missing[0].rstrip('.')}: the style encoder is a file of CSD's, with backbone, "
            "last_layer_style and last_layer_content"
        )
    return found
