"""What files are, by their content, and the image encoder that an adapter needs; only headers are read for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

from ..ipadapter_core import (
    AdapterSpec,
    Encoder,
    detect,
    encoder_name,
    encoder_of_weights,
    image_tower,
    read_config,
    read_shapes,
)
from ..ipadapter_core.facts.encoders import encoder_of
from . import folders

State = tuple[tuple[str, int, int], ...]


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
    found = ((name, encoder_facts(path)) for name, path in there(folders.ENCODERS, names))
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
    if published is not None:
        return size_of(encoder) == size_of(published.encoder)
    width = encoder.embed_dim if spec.feature == "pooled" else encoder.width
    return width == spec.feature_dim and spec.feature_length in (None, encoder.num_states)


def first_for_pictures(names: Sequence[str]) -> str | None:
    """The first adapter that reads a picture without faces, which Image Prompt starts with; None where none does."""
    for name, path in there(folders.ADAPTERS, names):
        found = adapter_facts(path)
        if found is not None and found[0].identity is None:
            return name
    return None


def size_of(encoder: Encoder) -> tuple[int, int | None, int]:
    """Width, width of the pooled embedding and image size: what tells the published encoders apart."""
    return encoder.width, encoder.embed_dim, encoder.image_size


def adapter_facts(path: Path) -> tuple[AdapterSpec, dict[str, str]] | None:
    """What a file is, and its metadata; None where it is no adapter. A file that did not change is read once."""
    return _adapter_facts(folders.state(path))


def encoder_facts(path: Path) -> Encoder | None:
    """What a file or a transformers folder is; None where it is no image encoder. Read once, as adapters are."""
    return _encoder_facts(folders.state(path), path)


@lru_cache(maxsize=4096)
def _adapter_facts(state: State) -> tuple[AdapterSpec, dict[str, str]] | None:
    def read() -> tuple[AdapterSpec, dict[str, str]]:
        file = read_shapes(Path(state[0][0]))
        return detect(file.shapes), file.metadata

    return or_none(read)


@lru_cache(maxsize=4096)
def _encoder_facts(state: State, path: Path) -> Encoder | None:
    def read() -> Encoder:
        if path.is_dir():
            return read_config(path)
        return encoder_of_weights(image_tower(cast("dict[str, Any]", read_shapes(path).shapes)))

    return or_none(read)


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
