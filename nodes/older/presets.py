"""What the presets of the older unified loaders mean: the content of a file, and its usual names.

Content decides what fits; names only tell apart files that have one layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...ipadapter_core.facts.bases import KOLORS, SD15, SDXL
from ...ipadapter_core.facts.encoders import ENCODERS, PublishedEncoder
from .inputs import COMMUNITY_PRESETS, FACE_PRESETS, PRESETS

VIT_H, VIT_BIG_G, _, VIT_L_336 = ENCODERS
H94, FACE_ID = "https://huggingface.co/h94/IP-Adapter", "https://huggingface.co/h94/IP-Adapter-FaceID"
COMPOSITION_PLACE = "https://huggingface.co/ostris/ip-composition-adapter"
KOLORS_PLACE = "https://huggingface.co/Kwai-Kolors/Kolors-IP-Adapter-Plus"


@dataclass(frozen=True)
class Preset:
    """An adapter that a preset stands for.

    family, feature_dim: its content. twin: which of the files of one layout it is; "": there are no others. names: by
    base, what its published files' names end with, the best first. has_lora: a LoRA in a file of its own belongs to it.
    """

    family: str
    feature_dim: int
    twin: str
    names: Mapping[str, tuple[str, ...]]
    place: str = H94
    encoder: PublishedEncoder = VIT_H
    has_lora: bool = False
    has_faces: bool = False


def _both(sd15: str, sdxl: str) -> dict[str, tuple[str, ...]]:
    """Names by base, several with a comma between them."""
    pairs = ((SD15.name, sd15), (SDXL.name, sdxl))
    return {base: tuple(names.split(", ")) for base, names in pairs if names}


_BASE = [
    Preset("base", 1024, "light", _both("sd15_light_v11, sd15_light", "")),
    Preset("base", 1024, "standard", _both("ip-adapter_sd15", "ip-adapter_sdxl_vit-h")),
    Preset("base", 1280, "", _both("sd15_vit-G", "ip-adapter_sdxl"), encoder=VIT_BIG_G),
    Preset("plus", 1280, "plus", _both("ip-adapter-plus_sd15", "ip-adapter-plus_sdxl_vit-h")),
    Preset("plus", 1280, "face", _both("plus-face_sd15", "plus-face_sdxl_vit-h")),
    Preset("full-face", 1280, "", _both("full-face_sd15", "")),
]
_FACES = [
    Preset("FaceID", 0, "", _both("faceid_sd15", "faceid_sdxl"), FACE_ID, has_lora=True, has_faces=True),
    Preset("FaceID plus", 1280, "v1", _both("faceid-plus_sd15", ""), FACE_ID, has_lora=True, has_faces=True),
    Preset(
        "FaceID plus", 1280, "v2", _both("faceid-plusv2_sd15", "faceid-plusv2_sdxl"), FACE_ID, has_lora=True,
        has_faces=True,
    ),
    Preset(
        "FaceID portrait", 0, "", _both("portrait-v11_sd15, portrait_sd15", "portrait_sdxl"), FACE_ID, has_faces=True
    ),
    Preset("FaceID portrait unnorm", 0, "", _both("", "portrait_sdxl_unnorm"), FACE_ID, has_faces=True),
]  # fmt: skip
_COMMUNITY = [
    Preset("plus", 1280, "composition", _both("plus_composition_sd15", "plus_composition_sdxl"), COMPOSITION_PLACE),
    Preset(
        "Kolors plus", 1024, "", {KOLORS.name: ("ip_adapter_plus_general", "Kolors-IP-Adapter-Plus")}, KOLORS_PLACE,
        VIT_L_336,
    ),
]  # fmt: skip
BY_NAME = dict(zip((*PRESETS, *FACE_PRESETS, *COMMUNITY_PRESETS), (*_BASE, *_FACES, *_COMMUNITY)))
# What the published encoders' names have in them.
ENCODER_NAMES = {VIT_H.name: "vit_h_14", VIT_BIG_G.name: "vit_bigg_14", VIT_L_336.name: "336"}


def preset_of(name: str) -> Preset:
    """By its name in the list, or the beginning of it. Raises ValueError for an unknown one."""
    found = [
        preset for known, preset in BY_NAME.items() if known == name or known.split(" - ")[0].split(" (")[0] == name
    ]
    if not found:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(BY_NAME)}")
    return found[0]


def plain(name: str) -> str:
    """A file's name without its ending and folders, small, with _ for - and . too."""
    return re.sub(r"[-. ]", "_", re.sub(r"\.(safetensors|bin|pth?|ckpt)$", "", PurePosixPath(name).name.lower()))


def is_named(name: str, wanted: str) -> bool:
    """Whether a file's name ends with a published one."""
    return plain(name).endswith(plain(wanted))


def twin_of(name: str, family: str, metadata: Mapping[str, str]) -> str:
    """Which of the files of one layout this one says to be; "": it does not say."""
    said = plain(name)
    if family == "FaceID plus":
        if "shortcut" in metadata:
            return "v2" if metadata["shortcut"] == "true" else "v1"
        return "v2" if "plusv2" in said or "plus_v2" in said else "v1" if "faceid_plus" in said else ""
    if family == "plus":
        words = {"composition": "composition", "face": "face", "portrait": "face", "plus": "plus"}
    elif family == "base":
        words = {"light": "light", "ip_adapter_sd": "standard"}
    else:
        return ""
    return next((twin for word, twin in words.items() if word in said), "")
