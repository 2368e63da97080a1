"""Text and JSON files of the user, read with a sentence where they are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """A file of UTF-8 text. Raises ValueError, naming it, when it is none or cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): correct its name or its permissions") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ValueError, naming it, when it is none or cannot be read."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): download or write it again") from error


def read_object(path: Path) -> dict[str, Any]:
    """A file with one JSON object. Raises ValueError, naming it, when it is none or cannot be read."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected an object {{...}}: download it again")
    return found
