"""What files are, by their content, and the image encoder that an adapter needs; only headers are read for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from ..ipadapter_core import (
    AdapterSpec,
    Base,
    Encoder,
    base_of,
    detect,
    encoder_name,
    read_encoder_facts,
    read_shapes,
)
from ..ipadapter_core.facts.encoders import HUB, encoder_of
from . import folders

State = tuple[tuple[str, int, int], ...]
Facts = TypeVar("Facts")
# The adapter to begin with, by the base's name.
ADAPTERS = {
    "SD1.5": f"{HUB}/h94/IP-Adapter/resolve/main/models/ip-adapter_sd15.safetensors",
    "SDXL": f"{HUB}/h94/IP-Adapter/resolve/main/sdxl_models/ip-adapter_sdxl_vit-h.safetensors",
    "Kolors": f"{HUB}/Kwai-Kolors/Kolors-IP-Adapter-Plus/resolve/main/ip_adapter_plus_general.bin",
}
FACE_ADAPTERS = {
    "SD1.5": f"{HUB}/h94/IP-Adapter-FaceID/resolve/main/ip-adapter-faceid_sd15.bin",
    "SDXL": f"{HUB}/h94/IP-Adapter-FaceID/resolve/main/ip-adapter-faceid_sdxl.bin",
    "Kolors": f"{HUB}/Kwai-Kolors/Kolors-IP-Adapter-FaceID-Plus/resolve/main/ipa-faceid-plus.bin",
}


@dataclass(frozen=True)
class Found:
    """A file that was chosen. name: in its list. why: in words."""

    name: str
    path: Path
    why: str


def encoder_for(spec: AdapterSpec, adapter: str) -> Found:
    """The first image encoder that the adapter of this name reads, by widths; what comes with the pack is last.

    Raises ValueError that says which encoder is needed, and where to get it, when there is none.
    """
    if spec.feature is None:
        raise ValueError(f"{adapter} needs no image encoder: it reads faces' identities alone, from Encode Faces")
    listed = [*folders.own_encoder_files(), *folders.bundled_encoder_files()]
    fitting = [name for name, encoder in _encoders(listed).items() if fits(spec, encoder)]
    if not fitting:
        raise ValueError(missing_encoder(spec, adapter))
    why = "the one that fits" if len(fitting) == 1 else f"the first of {len(fitting)} that fit"
    return Found(fitting[0], folders.path_of(folders.ENCODERS, fitting[0]), why)


def only_encoder() -> Found:
    """The image encoder where no adapter tells which one is meant: the user's only one, or the one of the pack.

    Raises ValueError when there are several kinds of them, or none.
    """
    own = _encoders(folders.own_encoder_files())
    if len({size_of(encoder) for encoder in own.values()}) > 1:
        raise ValueError(
            f"Which image encoder? There are {len(own)} ({', '.join(own)}): connect Load IP-Adapter to 'adapter', "
            "and auto takes the one that it needs, or choose one"
        )
    names = [*own, *_encoders(folders.bundled_encoder_files())]
    if not names:
        raise ValueError("no image encoder is in models/clip_vision: connect Load IP-Adapter to see which one it needs")
    why = "the only one there" if len(own) == 1 else "the first of its kind" if own else "the only one, for pocket"
    return Found(names[0], folders.path_of(folders.ENCODERS, names[0]), why)


def _encoders(names: Iterable[str]) -> dict[str, Encoder]:
    """The listed files that are image encoders."""
    found = ((name, or_none(partial(encoder_facts, path))) for name, path in there(folders.ENCODERS, names))
    return {name: encoder for name, encoder in found if encoder is not None}


def missing_encoder(spec: AdapterSpec, adapter: str) -> str:
    """That no file is the encoder an adapter needs, with its address."""
    published = encoder_of(spec)
    said = f"{encoder_name(spec)} is missing, which {adapter} needs"
    if published is None:
        return f"{said}: put the image encoder that it was trained with into models/clip_vision"
    return f"{said}: download {published.url} ({published.size:g} GB) into models/clip_vision, under any name"


def fits(spec: AdapterSpec, encoder: Encoder) -> bool:
    """Whether an adapter reads this encoder: the published one of its widths, else any with the feature's."""
    published = encoder_of(spec)
    return reads(spec, encoder) if published is None else size_of(encoder) == size_of(published.encoder)


def reads(spec: AdapterSpec, encoder: Encoder) -> bool:
    """Whether an encoder's feature has the shape that an adapter reads, whatever it was trained on."""
    return _width(spec, encoder) == spec.feature_dim and spec.feature_length in (None, encoder.num_states)


def mismatch(spec: AdapterSpec, adapter: str, encoder: Encoder, name: str) -> str:
    """That an encoder's feature has not the shape that the adapter of this name reads."""
    return (
        f"{name} does not fit {adapter}: it gives {_width(spec, encoder)}-wide {spec.feature} features, and the "
        f"adapter reads {spec.feature_dim}-wide ones. Choose {encoder_name(spec)}, or auto, which finds it"
    )


def _width(spec: AdapterSpec, encoder: Encoder) -> int | None:
    """Of the feature that an adapter reads; None where the encoder has it not."""
    return encoder.embed_dim if spec.feature == "pooled" else encoder.width


def adapters(names: Iterable[str]) -> Iterator[tuple[str, AdapterSpec]]:
    """The listed files that are adapters which run here."""
    for name, path in there(folders.ADAPTERS, names):
        found = or_none(partial(adapter_facts, path))
        if found is not None:
            yield name, found[0]


def adapters_for(base: Base | None, context_dim: int, num_sites: int, has_faces: bool) -> list[str]:
    """The listed adapters for a model of these numbers, of those for faces or of those for pictures."""
    wanted = (base, context_dim, num_sites, has_faces)
    return [
        name
        for name, spec in adapters(folders.adapter_files())
        if (base_of(spec), spec.context_dim, len(spec.layers), spec.identity is not None) == wanted
    ]


def where_to_get(base: Base | None, has_faces: bool) -> str:
    """Where the usual adapter of a base is; "" where none is published."""
    return (FACE_ADAPTERS if has_faces else ADAPTERS).get(base.name if base else "", "")


def first_for_pictures(names: Sequence[str]) -> str | None:
    """The first adapter that reads a picture without faces, which Image Prompt starts with; None where none does."""
    return next((name for name, spec in adapters(names) if spec.identity is None), None)


def size_of(encoder: Encoder) -> tuple[int, int | None, int]:
    """Width, width of the pooled embedding and image size: what tells the published encoders apart."""
    return encoder.width, encoder.embed_dim, encoder.image_size


AdapterFacts = tuple[AdapterSpec, dict[str, str]]


def adapter_facts(path: Path) -> AdapterFacts:
    """What a file is, and its metadata; a file that did not change is read once. Raises ValueError for no adapter."""
    return _facts_or_raise(_adapter_facts(folders.state(path)), path)


def encoder_facts(path: Path) -> Encoder:
    """What a file or a transformers folder is; read once, as adapters are. Raises ValueError for no image encoder."""
    return _facts_or_raise(_encoder_facts(folders.state(path), path), path)


def _facts_or_raise(found: Facts | str, path: Path) -> Facts:
    if isinstance(found, str):
        raise ValueError(found if path.name in found else f"{path.name}: {found}")
    return found


@lru_cache(maxsize=4096)
def _adapter_facts(state: State) -> AdapterFacts | str:
    try:
        file = read_shapes(Path(state[0][0]))
        return detect(file.shapes), file.metadata
    except ValueError as error:
        return str(error)


@lru_cache(maxsize=4096)
def _encoder_facts(state: State, path: Path) -> Encoder | str:
    try:
        return read_encoder_facts(path)
    except ValueError as error:
        return str(error)


def or_none(read: Callable[[], Any]) -> Any:
    """What is read; None where a file is something else, which is no fault here: folders hold many kinds."""
    try:
        return read()
    except ValueError:
        return None


def there(kind: str, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """The listed files with their paths, links that lead nowhere left out."""
    for name in names:
        path = or_none(partial(folders.path_of, kind, name))
        if path is not None:
            yield name, path
