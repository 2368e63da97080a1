"""What the older sockets carry, in both directions: dicts of models, state dicts, FaceAnalysis, tensors.

IPADAPTER is {"ipadapter": {"file", "model"}, "clipvision": {"file", "model"}, "insightface": {"provider", "model"}}, or
the first model alone: {"image_proj": {...}, "ip_adapter": {...}} with a key FACE_ID_V2 or UNNORM where a file's path
says so.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ...ipadapter_core import WeightsFile, detect, read_adapter
from .. import folders
from ..models import Adapter, adapter_of

GROUPS = ("image_proj", "ip_adapter")
FACE_ID_V2, UNNORM = "faceidplusv2", "portraitunnorm"
FACE_ID_PLUS = "FaceID plus"
UNNAMED = "the adapter on the socket ipadapter"

# Adapters by a tensor of the state dict that they are made of: while that is alive, nothing is made twice.
_made: WeakIdKeyDictionary = WeakIdKeyDictionary()


@dataclass(frozen=True, eq=False)
class Models:
    """An adapter, and what a loader brought for it."""

    adapter: Adapter
    clip_vision: Any | None
    insightface: Any | None

    def encoder(self) -> Any:
        """Raises ValueError where there is none."""
        if self.clip_vision is None:
            raise ValueError(
                f"{self.adapter.name} reads pictures through an image encoder, and there is none: connect clip_vision, "
                "or use a unified loader"
            )
        return self.clip_vision

    def faces(self) -> Any:
        """Raises ValueError where there is none."""
        if self.insightface is None:
            raise ValueError(
                f"{self.adapter.name} reads faces, and there is no face model: connect insightface, or use IPAdapter "
                "Unified Loader FaceID"
            )
        return self.insightface


def models_of(ipadapter: Any, clip_vision: Any = None, insightface: Any = None) -> Models:
    """What is on IPADAPTER, from this pack's loaders or another's; what is connected beside it counts before.

    Raises ValueError when it is not an adapter.
    """
    if not isinstance(ipadapter, Mapping):
        raise ValueError(
            f"ipadapter is a {type(ipadapter).__name__}, expected what a loader of these nodes gives: connect one"
        )
    if "ipadapter" not in ipadapter:
        return Models(adapter_from(ipadapter, UNNAMED), clip_vision, insightface)
    part = ipadapter["ipadapter"] or {}
    if not isinstance(part.get("model"), Mapping):
        raise ValueError("ipadapter holds no adapter: load one with a unified loader or IPAdapter Model Loader")
    name = Path(str(part.get("file") or UNNAMED)).name
    return Models(
        adapter_from(part["model"], name),
        clip_vision if clip_vision is not None else (ipadapter.get("clipvision") or {}).get("model"),
        insightface if insightface is not None else (ipadapter.get("insightface") or {}).get("model"),
    )


def adapter_from(state_dict: Mapping[str, Any], name: str) -> Adapter:
    """The adapter of a state dict, made once while it is alive. Raises ValueError when it is no adapter."""
    flat = {
        f"{group}.{key}": value
        for group in GROUPS
        for key, value in (state_dict.get(group) or {}).items()
        if isinstance(value, Tensor)
    }
    flat |= {key: value for key, value in state_dict.items() if isinstance(value, Tensor)}
    anchor = next((value for key, value in flat.items() if key.endswith(".to_k_ip.weight")), None)
    if anchor is None:
        raise ValueError(f"{name} has no keys and values (ip_adapter.1.to_k_ip.weight, ..): load an adapter file")
    is_v2 = bool(state_dict.get(FACE_ID_V2))
    made: dict[bool, Adapter] = _made.setdefault(anchor, {})
    if is_v2 not in made:
        made[is_v2] = adapter_of(name, WeightsFile(flat), _variant(flat, is_v2))
    return made[is_v2]


def _variant(flat: Mapping[str, Tensor], is_v2: bool) -> str:
    """Which FaceID plus it is, which only its file's path told."""
    if detect(flat).family != FACE_ID_PLUS:
        return "auto"
    return f"{FACE_ID_PLUS} v2" if is_v2 else f"{FACE_ID_PLUS} v1"


class StateDict(dict[str, Any]):
    """A dict that can be held weakly."""


# The state dicts that are alive, by file and its state: the same unchanged file is read once.
_alive: weakref.WeakValueDictionary[Any, StateDict] = weakref.WeakValueDictionary()


def state_dict_of(name: str) -> StateDict:
    """An adapter file of the list as IPADAPTER carries it. Raises ValueError when it is no adapter."""
    path = folders.path_of(folders.ADAPTERS, name)
    key = (folders.state(path), name)
    found = _alive.get(key)
    if found is None:
        found = _alive[key] = _read(path, name)
    return found


def _read(path: Path, name: str) -> StateDict:
    file = read_adapter(path)
    try:
        spec = detect(file.tensors)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    found = StateDict({group: {} for group in GROUPS})
    for key, value in file.tensors.items():
        group, _, rest = key.partition(".")
        if group in found:
            found[group][rest] = value
        else:
            found[key] = value
    lowered = name.lower()
    if file.metadata.get("shortcut", str("plusv2" in lowered).lower()) == "true" and spec.family == FACE_ID_PLUS:
        found[FACE_ID_V2] = True
    if spec.family == "FaceID portrait unnorm" or "unnorm" in lowered:
        found[UNNORM] = True
    return found
