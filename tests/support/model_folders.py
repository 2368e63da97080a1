"""Folders of models that hold headers of published files, with holes in place of the weights: content to go by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionModelWithProjection

from tests.support import clip_models, host

host.pack()
import folder_paths  # noqa: E402  (ComfyUI is on the path only after the pack is loaded)

KINDS = ("ipadapter", "clip_vision", "loras", "insightface", "image_prompts")


@contextmanager
def empty_folders(root: Path) -> Iterator[Path]:
    """ComfyUI's folders of these kinds at `root`, with nothing in them."""
    known = {kind: folder_paths.folder_names_and_paths.get(kind) for kind in KINDS}
    for kind in KINDS:
        (root / kind).mkdir()
        folder_paths.folder_names_and_paths[kind] = ([str(root / kind)], {".safetensors", ".bin"})
    folder_paths.filename_list_cache.clear()
    yield root
    for kind, places in known.items():
        if places is None:
            del folder_paths.folder_names_and_paths[kind]
        else:
            folder_paths.folder_names_and_paths[kind] = places
    folder_paths.filename_list_cache.clear()


class Header:
    """Writes a safetensors header of a layout's shapes, with a hole in place of the weights."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str, shapes: dict[str, Any], number: int = 0, **metadata: str) -> None:
        header, end = {}, 0
        for key, value in shapes.items():
            size = value.numel() * 2
            header[key] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [end, end + size]}
            end += size
        if metadata:
            header["__metadata__"] = metadata
        head = json.dumps(header).encode()
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            file.truncate(8 + len(head) + end)  # a hole: nothing on the disk
            file.seek(8 + len(head))
            file.write(bytes([number]))  # what tells two apart
        folder_paths.filename_list_cache.clear()


def encoder_shapes(architecture: str) -> dict[str, torch.Tensor]:
    """The layout of an image encoder of open_clip's name, two layers deep, in transformers' names."""
    with torch.device("meta"):
        return dict(CLIPVisionModelWithProjection(clip_models.vision_config(architecture)).state_dict())
