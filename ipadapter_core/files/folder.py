"""The weights in a folder that transformers or open_clip wrote: whole, in parts, in half precision, several at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONFIG = "config.json"
PRECISION = r"(?:\.(?P<{0}>(?:fp|bf|float|bfloat)\d+\w*|non_ema|ema))?"
WEIGHTS = re.compile(
    r"^(?P<whose>open_clip_)?(?:pytorch_)?model"
    + PRECISION.format("before")
    + r"(?:-(?P<number>\d{5})-of-(?P<count>\d{5}))?"
    + PRECISION.format("after")
    + r"\.(?P<kind>safetensors|bin)$"
)


def weights_of(folder: Path) -> list[Path]:
    """The files that hold one set of a folder's weights: the first of full precision and safetensors that is whole.

    Raises ValueError when there is none, or each lacks parts.
    """
    names = [path.name for path in folder.iterdir() if path.is_file() or path.is_symlink()]
    sets = sorted(_sets(folder, names).items())
    for _, wanted in sets:
        if all(name in names for name in wanted):
            return [folder / name for name in wanted]
    for _, wanted in sets:
        missing = [name for name in wanted if name not in names]
        raise ValueError(
            f"{folder.name} lacks {len(missing)} of the {len(wanted)} parts of its weights ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}): download them into it"
        )
    raise ValueError(
        f"{folder} has a {CONFIG} but none of model.safetensors, pytorch_model.bin or open_clip_model.safetensors, in "
        "one file or in parts: add the weights"
    )


def parts_of(path: Path) -> list[Path]:
    """All parts of the weights that a file is a part of, in their order; the file itself where it is whole.

    Raises ValueError when one is missing.
    """
    match = WEIGHTS.match(path.name)
    if not match or not match["number"]:
        return [path]
    wanted = [path.with_name(name) for name in _parts(match)]
    if missing := [part.name for part in wanted if not part.exists()]:
        raise ValueError(
            f"{path.name} is one part of {len(wanted)}, and {missing[0]} is not beside it: put all parts, and the "
            f"{CONFIG} of their encoder, into one folder"
        )
    return wanted


def is_of_folder(path: Path) -> bool:
    """Whether a file is weights, or a part of them, of a folder with a config."""
    if not path.with_name(CONFIG).exists():
        return False
    if WEIGHTS.match(path.name):
        return True
    try:
        return any(path.name in parts for _, parts in _indexed(path.parent))
    except ValueError:  # a damaged index tells nothing; the folder is refused when it is read
        return False


def is_further_part(path: Path) -> bool:
    """Whether a file is a part of weights, and not the first."""
    match = WEIGHTS.match(path.name)
    return bool(match and match["number"] and int(match["number"]) > 1)


def json_of(path: Path) -> dict[str, Any]:
    """A JSON file's object. Raises ValueError when it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (it holds a {type(found).__name__}): download it again")
    return found


def _sets(folder: Path, names: Iterable[str]) -> dict[tuple[Any, ...], list[str]]:
    """Sets of weights, by what says which comes first: transformers', safetensors, full precision, in one file."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name in names:
        if match := WEIGHTS.match(name):
            precision = match["before"] or match["after"] or ""
            parts = _parts(match) if match["number"] else [name]
            found[match["kind"] == "bin", bool(match["whose"]), precision, len(parts), parts[0]] = parts
    if not found:  # an index may give its parts any names
        found = {(".bin." in index, index): parts for index, parts in _indexed(folder)}
    return found


def _parts(match: re.Match[str]) -> list[str]:
    start, end = match.string[: match.start("number")], match.string[match.end("count") :]
    count = match["count"]
    return [f"{start}{number:05}-of-{count}{end}" for number in range(1, int(count) + 1)]


def _indexed(folder: Path) -> list[tuple[str, list[str]]]:
    """The parts that each index in a folder names. Raises ValueError for one that is damaged or leads out of it."""
    found = []
    for index in sorted(folder.glob("*.index*.json")):
        places = json_of(index).get("weight_map")
        parts = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
        if not parts or any(Path(name).name != name for name in parts):
            raise ValueError(f"{index} is damaged (it names no files beside it): download it again")
        found.append((index.name, parts))
    return found
