"""What a cache is made with, in words: a training reads only a cache that was made with the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ipadapter_core.method.spec import Feature

from ..settings.config import Config
from ..settings.families import trained_family
from ..settings.read import read_json
from .record import Source

TARGET = "shortest side bilinear, then centre crop"  # of the pictures that the autoencoder sees
SQUARE = "shortest side bicubic, then centre crop, normalised"  # of those that the image encoder sees
IDENTITIES = "identities"  # the part of a cache with faces' identities
BLOCKS, BLOCK = 64, 4096  # of a weights file's bytes that are hashed: any other training changes all of them
WEIGHTS = (".safetensors", ".bin", ".json", ".txt", ".ckpt", ".pt", ".pth")


def fingerprints(config: Config, source: Source, feature: Feature | None) -> dict[str, dict[str, Any]]:
    """For each part of a cache the values that shape it; of features and identities those that the family reads.

    Raises ValueError for data that cannot be cached.
    """
    if config.data.crop != "centre":
        raise ValueError(
            f'a cache holds one crop of a picture: set data.crop to "centre" instead of "{config.data.crop}", '
            "or clear data.cache"
        )
    data, model = config.data, config.model
    samples = {"data": source.digest()[:16], "number of samples": len(source), "smallest side": data.min_side}
    precision = {"precision": config.run.precision}
    base = Path(model.base)
    vae = Path(model.vae) if model.vae else base / "vae" if base.is_dir() else base
    texts = (
        [base / name for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")]
        if base.is_dir()
        else [base]
    )
    drafts = ", JPEG drafts" if data.draft else ""
    target = {"resolution": data.resolution, "preprocessing": TARGET + drafts}
    parts = {
        "samples": samples | target,
        "latents": samples | target | {"autoencoder": weights_digest([vae], model.variant)} | precision,
        "text": {"data": samples["data"], "text encoders": weights_digest(texts, model.variant)} | precision,
    }
    if feature:
        encoder = weights_digest([Path(model.encoder)], model.encoder_architecture)
        parts[feature] = samples | {"image encoder": encoder, "preprocessing": SQUARE + drafts} | precision
    if trained_family(config.adapter.family)[0].identity:
        parts[IDENTITIES] = samples | {"identities": f"data.identity_column {data.identity_column}, raw"}
    return parts


def difference(made: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """The first value that is another one, in words; None when all are the same."""
    for name, value in wanted.items():
        if not _is_same(made.get(name), value):
            return f"{name} is {made.get(name, 'not known')}, this training's is {value}"
    return None


def _is_same(made: Any, wanted: Any) -> bool:
    """Whether two values are the same; of weights their hashes, since the same file may have another name."""
    if made == wanted or not (isinstance(made, str) and isinstance(wanted, str)):
        return bool(made == wanted)
    hashes = [re.search(r" \(([0-9a-f]{12})\)$", text) for text in (made, wanted)]
    return all(hashes) and len({found[1] for found in hashes if found}) == 1


def weights_digest(paths: Iterable[Path], more: str = "") -> str:
    """A name and a hash of weights: of a file or folder by its content, of anything else (a tag) the name alone."""
    paths = [path for path in paths]
    known = [path for path in paths if path.exists()]
    if not known:
        return str(paths[0])
    digest = hashlib.sha256(more.encode())
    for path in known:
        files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in WEIGHTS)
        for file in files:
            digest.update(file.name.encode() if path.is_dir() else b"")
            _add_content(digest, file)
    return f"{known[0].name} ({digest.hexdigest()[:12]})"


def _add_content(digest: Any, file: Path) -> None:
    """Size and evenly spaced blocks of a file; all of a small one. JSON without its order and paths."""
    if file.suffix == ".json":
        found = read_json(file)
        values = found if isinstance(found, dict) else {"list": found}
        digest.update(json.dumps({k: v for k, v in values.items() if not k.startswith("_")}, sort_keys=True).encode())
        return
    size = file.stat().st_size
    digest.update(str(size).encode())
    with file.open("rb") as opened:
        if size <= BLOCKS * BLOCK:
            digest.update(opened.read())
            return
        for number in range(BLOCKS):
            opened.seek(number * (size - BLOCK) // (BLOCKS - 1), os.SEEK_SET)
            digest.update(opened.read(BLOCK))
