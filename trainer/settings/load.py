"""Reading and writing configs: TOML, presets, `--set` overrides; a wrong key is refused with the nearest right one."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from ipadapter_core.files.whole import whole

from .config import Config, tables
from .optimisers import own_values
from .read import read_text
from .rules import check

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = Path(__file__).parents[1] / "presets"


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a TOML file, or a preset by its name, with `section.key=value` overrides.

    Raises ValueError for a missing or broken file, an unknown section or key (naming the nearest), a value of a wrong
    type and values that exclude each other.
    """
    path = Path(path)
    if (
        not path.exists()
        and path.suffix in ("", ".toml")
        and (PRESETS / f"{path.stem}.toml").exists()
        and path.name == str(path)
    ):
        path = PRESETS / f"{path.stem}.toml"
    if not path.is_file():
        presets = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.toml")))
        raise ValueError(f"there is no config {path}: give a TOML file, or the name of a preset ({presets})")
    text = read_text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not valid TOML ({error}): correct that line") from error
    for override in overrides:
        name, equals, text = override.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot):
            raise ValueError(f"--set {override!r} was not understood: expected section.key=value, e.g. run.steps=1000")
        if not isinstance(values.setdefault(section, {}), dict):
            raise ValueError(f"{section} stands outside of a section in {path.name}: put it under [{section}]")
        values[section][key] = _toml_value(text.strip())
    return parse_config(values)


def parse_config(values: Mapping[str, Any]) -> Config:
    """A config from nested values, checked. Raises ValueError as `load_config` does."""
    sections = typing.get_type_hints(Config)
    parts = {}
    for name, section in values.items():
        if name not in sections:
            raise ValueError(f"unknown section [{name}]{_nearest(name, sections)}")
        if not isinstance(section, Mapping):
            raise ValueError(
                f"{name} = {section!r} stands outside of a section: put it under one of [{'], ['.join(sections)}]"
            )
        section = own_values(section) if name == "optimiser" else section
        parts[name] = _section(name, section, sections[name])
    config = Config(**parts)
    check(config)
    return config


def _section(name: str, values: Mapping[str, Any], kind: Any) -> Any:
    """A section's values, or those of one of its tables, as what they are."""
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ValueError(f"unknown key {name}.{key}{_nearest(key, hints, name)}")
    return kind(**{key: _typed(f"{name}.{key}", value, hints[key]) for key, value in values.items()})


def save_config(config: Config, path: str | Path) -> None:
    """Write every value of a config as TOML that `load_config` reads back to the same config."""
    lines = []
    for section, values in tables(config).items():
        lines += [f"[{section}]", *(f"{key} = {_toml_text(value)}" for key, value in values.items()), ""]
    with whole(path) as part:
        part.write_text("\n".join(lines), encoding="utf-8")


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word on the command line is a string


def _toml_text(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        tables = (", ".join(f"{key} = {_toml_text(item)}" for key, item in one.items()) for one in value)
        return f"[{', '.join(f'{{{table}}}' for table in tables)}]"
    return json.dumps(value, ensure_ascii=False)  # JSON's numbers, booleans, strings and arrays are TOML's too


def _nearest(name: str, known: Iterable[str], section: str = "") -> str:
    known = list(known)
    prefix = f"{section}." if section else ""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if near:
        return f": did you mean {prefix}{near[0]}?"
    return f": choose one of {', '.join(prefix + key for key in known)}"


def _typed(name: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ValueError(f"{name} = {value!r} is unknown: choose one of {', '.join(choices)}")
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{name} = {value!r} should be a list, like [{value!r}]")
        return tuple(_typed(name, item, typing.get_args(hint)[0]) for item in value)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} should hold tables, one for each data set: [[{name}]]")
        return _section(name, value, hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}
        raise ValueError(f"{name} = {value!r} should be {words[hint]}")
    if isinstance(value, str) and not is_unicode(value):
        raise ValueError(f"{name} = {value!r} is not UTF-8, and no config can hold it: give it another name")
    return value


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: a file's name of other bytes, or half an emoji, cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
