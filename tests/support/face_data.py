"""Data with faces for tests: random identities and crops, in every way that the trainer reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.support import runs
from trainer.settings.config import Config

# What a test of each family sets; plus-face is plus, with the face's picture as the condition.
FAMILIES: dict[str, dict[str, Any]] = {
    "plus-face": {"family": "plus"},
    "full-face": {"family": "full-face"},
    "FaceID": {"family": "FaceID", "lora_rank": 8},
    "FaceID plus v1": {"family": "FaceID plus", "lora_rank": 8, "shortcut": False},
    "FaceID plus v2": {"family": "FaceID plus", "lora_rank": 8},
}
WITH_IDENTITY = [name for name in FAMILIES if name.startswith("FaceID")]


def identities(number: int) -> torch.Tensor:
    """Raw identities [N, 512], as long as ArcFace's: about 20."""
    return torch.randn(number, 512, generator=torch.Generator().manual_seed(5))


def write_faces(folder: Path, number: int = 12) -> Path:
    """A list with pictures, captions, crops (the next picture), and identities: numbers, and both kinds of files."""
    rows = json.loads(runs.write_data(folder, number).read_text())
    found = identities(number)
    for place, row in enumerate(rows):
        row["face"] = f"{(place + 1) % number}.png"
        kind = place % 3
        if kind == 0:
            row["identity"] = found[place].tolist()
        elif kind == 1:
            row["identity"] = f"{place}.npy"
            np.save(folder / row["identity"], found[place].numpy())
        else:
            row["identity"] = f"{place}.safetensors"
            save_file({"embedding": found[place][None]}, folder / row["identity"])
    (folder / "faces.json").write_text(json.dumps(rows))
    return folder / "faces.json"


def face_config(folder: Path, name: str, **sections: dict[str, Any]) -> Config:
    """A small run of a family on data with faces."""
    source = folder / "faces" / "faces.json"
    if not source.exists():
        write_faces(source.parent)
    columns = {"condition_column": "face", **({"identity_column": "identity"} if name in WITH_IDENTITY else {})}
    sections["data"] = {"source": str(source), "drop_image": 0.3, **columns} | sections.get("data", {})
    sections["adapter"] = FAMILIES[name] | sections.get("adapter", {})
    sections["run"] = {"steps": 4, "save_every_steps": 2, "batch_size": 2} | sections.get("run", {})
    return runs.tiny_config(folder, **sections)
