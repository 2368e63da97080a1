"""Files for a preset and a model, found by their content; only shapes are read of files that are not chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import comfy.sd
import folder_paths

from ...ipadapter_core import (
    AdapterSpec,
    Base,
    attention_names,
    base_name,
    read_shapes,
    read_weights,
)
from ...ipadapter_core.facts.encoders import PublishedEncoder
from .. import folders
from ..find import Found, State, adapter_facts, encoder_facts, or_none, size_of, there
from ..hosts import host_of
from ..hosts.lora import has_lora
from ..models import Adapter
from .presets import ENCODER_NAMES, Preset, is_named, plain, twin_of

LORAS = "loras"
PART = 1 << 24  # bytes of a file at once
TOLD, UNTOLD = 50, 100  # ranks after the published names, which count from 0


def find_adapter(preset: Preset, title: str, base: Base | None, model_name: str) -> Found:
    """The adapter of a preset for a base. Raises ValueError when there is none, or when two fit equally."""
    if base is None or base.name not in preset.names:
        known = " and ".join(preset.names)
        raise ValueError(
            f"the preset {title!r} has adapters for {known}, but the model is {base.name if base else model_name}"
        )
    names = preset.names[base.name]
    ranked: dict[str, int] = {}
    for name, path in there(folders.ADAPTERS, folders.adapter_files()):
        found = or_none(partial(adapter_facts, path))
        if found is None or not _fits(found[0], preset, base):
            continue
        twin = twin_of(name, preset.family, found[1])
        if preset.twin and twin not in (preset.twin, ""):
            continue
        published = (place for place, wanted in enumerate(names) if is_named(name, wanted))
        ranked[name] = next(published, TOLD if twin else UNTOLD)
    what = f"a {preset.family} adapter for {base.name}"
    hint = f"{names[0]}.safetensors from {preset.place}"
    return _best(ranked, folders.ADAPTERS, f"the preset {title!r}", what, hint)


def _fits(spec: AdapterSpec, preset: Preset, base: Base) -> bool:
    width = 0 if spec.feature is None else spec.feature_dim
    return spec.family == preset.family and width == preset.feature_dim and base_name(spec) == base.name


def find_encoder(wanted: PublishedEncoder, is_needed: bool = True) -> Found | None:
    """The encoder with these widths. Raises ValueError when two fit equally, or one is needed and there is none."""
    ranked = {}
    for name, path in there(folders.ENCODERS, folders.own_encoder_files()):
        encoder = or_none(partial(encoder_facts, path))
        if encoder is not None and size_of(encoder) == size_of(wanted.encoder):
            ranked[name] = 0 if ENCODER_NAMES[wanted.name] in plain(name.replace("/", "_")) else UNTOLD
    if not ranked and not is_needed:
        return None
    hint = wanted.url
    return _best(ranked, folders.ENCODERS, f"the encoder {wanted.name}", "an encoder of its widths", hint)


def find_lora(preset: Preset, base: Base, adapter: Adapter, model: Any) -> Found:
    """The LoRA that belongs to a FaceID adapter: by its name, or because it is the one inside of the adapter.

    Raises ValueError when there is none, or when two fit equally.
    """
    wanted = f"{preset.names[base.name][0]}_lora"
    files = dict(there(LORAS, folder_paths.get_filename_list(LORAS)))
    ranked = {name: 0 for name, path in files.items() if is_named(name, wanted) and _is_lora_for(path, base)}
    if not ranked and adapter.lora:
        fitting = [name for name, path in files.items() if _is_lora_for(path, base)]
        ranked = {name: TOLD for name in fitting if _is_same_lora(files[name], adapter, model)}
    hint = f"{wanted}.safetensors from {preset.place}"
    return _best(ranked, LORAS, f"the LoRA of {adapter.name}", f"the LoRA of this adapter for {base.name}", hint)


def _best(ranked: Mapping[str, int], kind: str, asked: str, what: str, hint: str) -> Found:
    """The file of the lowest rank. Raises ValueError when there is none, or more than one that differ."""
    if not ranked:
        places = " or ".join(folder_paths.get_folder_paths(kind))
        raise ValueError(f"{asked} asks for {what}, and no file in {places} is one: put {hint} there")
    rank = min(ranked.values())
    names = _without_copies([name for name, of_name in ranked.items() if of_name == rank], kind)
    if len(names) > 1:
        raise ValueError(
            f"{asked} asks for {what}, and {len(names)} files fit equally ({', '.join(names)}): take one away, or load "
            "it by name with its own loader"
        )
    why = "the published name" if rank < TOLD else "told by its name" if rank == TOLD else "the only one that fits"
    if kind == LORAS and rank == TOLD:
        why = "the same as inside of the adapter's file"
    return Found(names[0], folders.path_of(kind, names[0]), why)


def _without_copies(names: Sequence[str], kind: str) -> list[str]:
    """One of the files that hold the same: .safetensors before .bin of one name, the first of equal bytes."""
    by_stem: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (not name.endswith(".safetensors"), name)):
        by_stem.setdefault(name.rpartition(".")[0] or name, name)
    found = sorted(by_stem.values())
    if len(found) < 2:
        return found
    by_content: dict[tuple[int, str], str] = {}
    for name in found:
        by_content.setdefault(_content(folders.path_of(kind, name)), name)
    return list(by_content.values())


def _content(path: Path) -> tuple[int, str]:
    """Size and digest of a file; of a folder, those of its largest file."""
    if path.is_dir():
        path = max((file for file in path.iterdir() if file.is_file()), key=lambda file: file.stat().st_size)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART):
            digest.update(part)
    return path.stat().st_size, digest.hexdigest()


def _is_lora_for(path: Path, base: Base) -> bool:
    """Whether a file is a LoRA that reads the base's text."""
    return bool(_lora_reads(folders.state(path), base.context_dim))


@lru_cache(maxsize=4096)
def _lora_reads(state: State, width: int) -> bool:
    file = or_none(lambda: read_shapes(Path(state[0][0])))
    shapes = {} if file is None else file.shapes
    return any("lora" in key and "attn2" in key and width in weights.shape for key, weights in shapes.items())


def _is_same_lora(path: Path, adapter: Adapter, model: Any) -> bool:
    """Whether a file is the LoRA inside of the adapter's."""
    _, sites = host_of(model)
    tensors = read_weights(path).tensors
    patched, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    return has_lora(patched, adapter, attention_names(sites))
