"""What an adapter reads of a picture, as a file that needs neither picture nor encoder."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import folder_paths
import torch
from torch import Tensor

from ... import ipadapter_core as core
from ...ipadapter_core.method.spec import AdapterSpec, FaceCrop, Feature
from .. import folders
from ..models import Adapter
from .elsewhere import kept_in
from .pictures import digest_of
from .protocol import Prompt, given_of

log = logging.getLogger(__name__)

FORMAT = "image prompt 1"
IDENTITIES = "identities"
UNCONDITIONAL = "unconditional.penultimate"


def key_of(feature: Feature, crop: FaceCrop | None) -> str:
    """The name of features in the file."""
    return feature if crop is None else f"{crop.kind}-{crop.size}.{feature}"


class SavedPrompt:
    """An image prompt from a file, ours or another program's. Raises ValueError when the file is not one.

    words: what is in another program's file, for people; "" of ours.
    """

    def __init__(self, name: str, file: core.WeightsFile) -> None:
        self.name = name
        self.tensors = {key: value.float() for key, value in file.tensors.items()}
        self.metadata = file.metadata
        self.words = ""
        if self.metadata.get("format") != FORMAT:
            self._take(file.tensors.values())
        self._check()

    def _take(self, tensors: Iterable[Tensor]) -> None:
        """A file of another program."""
        try:
            found = kept_in(tensors)
        except ValueError as error:
            raise ValueError(f"{self.name} is not an image prompt: {error}, or a file of Save Image Prompt") from error
        self.tensors = {IDENTITIES if kept.kind is None else kept.kind: kept.values for kept in found}
        for kept in found:
            if kept.nothing is not None:
                self.tensors[UNCONDITIONAL] = kept.nothing
        self.words = ", ".join(kept.words for kept in found)

    def _check(self) -> None:
        for key, value in self.tensors.items():
            dimensions = 3 if key.endswith("penultimate") else 2
            if value.ndim != dimensions or 0 in value.shape or not torch.isfinite(value).all():
                raise ValueError(
                    f"{self.name} is damaged ({key} is {tuple(value.shape)}, or not finite): save it again"
                )

    @property
    def digest(self) -> str:
        known = self.metadata.get("pictures", "")
        return known if not self.words else digest_of(torch.cat([value.flatten() for value in self.tensors.values()]))

    def features(self, feature: Feature, crop: FaceCrop | None = None) -> Tensor:
        return self._of(key_of(feature, crop))

    def zero_states(self) -> Tensor:
        if self.words and UNCONDITIONAL not in self.tensors:
            states = self._of("penultimate")
            log.warning(
                '%s does not say what stands for "no picture": zeros do, as in the packs that save such', self.name
            )
            return torch.zeros_like(states[:1])
        return self._of(UNCONDITIONAL)

    def identities(self) -> Tensor | None:
        return self.tensors.get(IDENTITIES)

    def _of(self, key: str) -> Tensor:
        if key not in self.tensors and self.words:
            raise ValueError(
                f"{self.name} holds {self.words}, but this adapter reads {key}: make the image prompt of the picture, "
                "or choose another adapter"
            )
        if key not in self.tensors:
            family, encoder = (self.metadata.get(name, "unknown") for name in ("family", "encoder"))
            raise ValueError(
                f"{self.name} was saved for {family} adapters (encoder: {encoder}) and has {', '.join(self.tensors)}, "
                f"but this adapter reads {key}: save the picture again with this adapter"
            )
        return self.tensors[key]


def tensors_for(prompt: Prompt, spec: AdapterSpec) -> dict[str, Tensor]:
    """All that an adapter of this kind reads of an image prompt, by name in the file."""
    tensors: dict[str, Tensor] = {}
    if spec.feature is not None:
        tensors[key_of(spec.feature, spec.face_crop)] = prompt.features(spec.feature, spec.face_crop)
        if spec.feature == "penultimate" and not spec.zero_features:
            tensors[UNCONDITIONAL] = prompt.zero_states()
    identities = prompt.identities()
    if identities is not None:
        tensors[IDENTITIES] = identities
    return {key: value.float().cpu().contiguous() for key, value in tensors.items()}


def metadata_for(prompt: Prompt, spec: AdapterSpec) -> dict[str, str]:
    """What the file says of itself."""
    crop = "" if spec.face_crop is None else f"{spec.face_crop.kind} {spec.face_crop.size}"
    said = {
        "format": FORMAT,
        "family": spec.family,
        "encoder": core.encoder_name(spec),
        "feature": spec.feature or "",
        "face_crop": crop,
        "identity": spec.identity or "",
        "pictures": prompt.digest,
    }
    return {key: value for key, value in said.items() if value}


def save_prompt(prompt: Prompt, adapter: Adapter, name: str) -> Path:
    """Write what this adapter reads of the image prompt into models/image_prompts; no file is written over.

    Raises ValueError when the image prompt does not fit the adapter, or the name leads out of the folder.
    """
    given_of(prompt, adapter.spec, adapter.name)
    root = folder_paths.get_folder_paths(folders.PROMPTS)[0]
    if Path(name).is_absolute() or ".." in Path(name).parts or not name.strip():
        raise ValueError(f"{name!r} is no name for a file in {root}: give a name without ..")
    folder, stem, counter, _, _ = folder_paths.get_save_image_path(name, root)
    path = Path(folder, f"{stem}_{counter:05}_.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    core.write_safetensors(path, tensors_for(prompt, adapter.spec), metadata_for(prompt, adapter.spec))
    return path


def load_prompt(path: Path) -> SavedPrompt:
    """Read an image prompt of ours, or one of another program. Raises ValueError, naming the file, when it is none."""
    return SavedPrompt(path.name, core.read_values(path))
