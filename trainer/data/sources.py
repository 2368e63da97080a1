"""Where samples come from: a JSON list, JSON lines, a folder, WebDataset shards, a Hugging Face dataset on disk."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from ..settings.config import DataConfig
from .folders import FolderSource, has_pictures
from .huggingface import HuggingFaceSource
from .lists import ListSource
from .record import Source, UnreadableError
from .sets import Sets
from .tars import find_shards, find_shards_below
from .webdataset import ShardSource

LOOKED_AT = 200  # samples whose captions are read to see whether there are any


def open_source(data: DataConfig) -> Source:
    """The samples that a config names.

    Raises ValueError when there is nothing of that name or format, or a list has a fault, in a sentence with its place.
    """
    if data.sets:
        return Sets(data.sets, [open_source(one) for one in parts_of(data)])
    kind = find_format(data)
    source: Source
    if kind in ("json", "jsonl"):
        source = ListSource(data, is_lines=kind == "jsonl")
    elif kind == "folder":
        source = FolderSource(data)
    elif kind == "webdataset":
        source = ShardSource(data)
    else:
        source = HuggingFaceSource(data)
    if not len(source):
        found = "; ".join(source.left_out.lines())
        raise ValueError(
            f"{data.source} holds no samples: check data.source and data.format ({kind})"
            + (f"; left out: {found}" if found else "")
        )
    return source


def parts_of(data: DataConfig) -> list[DataConfig]:
    """The config of each of several sets as if it were alone; the config itself where there is one source."""
    return [
        dataclasses.replace(data, sets=(), source=one.source, format=one.format, pictures=one.pictures)
        for one in data.sets
    ] or [data]


def find_format(data: DataConfig) -> str:
    """The format of data.source. Raises ValueError when there is nothing, or its format is not known."""
    if not data.source:
        raise ValueError(
            "data.source is not set: give a JSON list, JSON lines, a folder, shards or a Hugging Face dataset"
        )
    if re.match(r"[a-z0-9+.-]{2,}://|pipe:", data.source):
        raise ValueError(
            f"data.source = {data.source!r} is an address, and only files of this machine are read: download it first"
        )
    return _format(data) if data.format == "auto" else data.format


def is_there(data: DataConfig) -> bool:
    """Whether there is something under data.source, or under that of every set."""
    return all(
        bool(one.source) and (Path(one.source).exists() or bool(find_shards(one.source))) for one in parts_of(data)
    )


def _format(data: DataConfig) -> str:
    path = Path(data.source)
    suffix = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(path.suffix.lower())
    if path.is_file() and suffix:
        return suffix
    if path.is_dir() and ((path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()):
        return "huggingface"
    if find_shards(data.source):
        return "webdataset"
    if path.is_dir():
        return "webdataset" if find_shards_below(path) and not has_pictures(path) else "folder"
    if path.exists():
        raise ValueError(f"the format of {path} is not known by its name: set data.format to json, jsonl or webdataset")
    if path.parent.is_dir() and (near := sorted(found.name for found in path.parent.glob("*.tar*"))):
        raise ValueError(
            f"there is no data {data.source}, but {', '.join(near[:3])} is there: correct data.source, or give a "
            "pattern like data/*.tar or data/{00000..00099}.tar"
        )
    raise ValueError(f"there is no data {data.source}: correct data.source")


def describe_source(source: Source) -> list[str]:
    """What a training should know of its data before it starts: captions and where they are, what is left out."""
    count, places = len(source), source.captions_from
    from_where = ", ".join(f"{place} ({number:,})" for place, number in places.most_common()) or "nowhere"
    lines = [f"data: {count:,} samples; captions from {from_where}"]
    if isinstance(source, Sets):
        lines += source.lines()
    if not has_captions(source):
        lines.append(
            "all captions are empty or cannot be read: only pictures are trained on; captions are looked for in "
            f"{source.caption_places}"
        )
    return lines + [f"left out of the data: {line}" for line in source.left_out.lines()]


def has_captions(source: Source) -> bool:
    """Whether any of some samples, spread evenly, has a caption that can be read."""
    count = len(source)
    return any(_has_caption(source, number * count // LOOKED_AT) for number in range(LOOKED_AT)) if count else False


def _has_caption(source: Source, index: int) -> bool:
    try:
        return any(source.captions(index))
    except UnreadableError:
        return False
