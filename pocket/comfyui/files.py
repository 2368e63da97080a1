"""A part of pocket as diffusers and transformers save it: a folder with config.json and one file of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a part. Raises ValueError that names the folder when it is not complete."""
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or len(weights) != 1:
        raise ValueError(
            f"pocket's {folder.name} is not in {folder} (config.json and one .safetensors file): get the folder "
            "pocket/weights from this pack's repository, or train it with `python -m pocket`"
        )
    return json.loads((folder / "config.json").read_text(encoding="utf-8")), load_file(weights[0])
