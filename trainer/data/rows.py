"""Lists of samples held without Python objects: workers share the memory, and millions of rows fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Check = Callable[[dict[str, Any], str], None]  # of a row, and where it stands; raises ValueError


class Rows:
    """Byte strings, one for each row, in two arrays."""

    def __init__(self, rows: Iterable[bytes]) -> None:
        content, ends = bytearray(), [0]
        for row in rows:
            content += row
            ends.append(len(content))
        self.content = np.frombuffer(bytes(content), dtype=np.uint8)
        self.ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.content[self.ends[index] : self.ends[index + 1]].tobytes()


def read_json_list(path: Path, check: Check) -> Rows:
    """The rows of a file with one JSON list of objects, checked. Raises ValueError with the place of a fault."""
    try:
        rows = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path.name} is not valid JSON: {error.msg} in line {error.lineno}; correct that line"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
    if not isinstance(rows, list):
        raise ValueError(
            f"{path.name} holds a {type(rows).__name__}, not a list of samples: expected [{{...}}, {{...}}]"
        )
    return Rows(_encoded(row, f"sample {number} of {path.name}", check) for number, row in enumerate(rows))


def read_json_lines(path: Path, check: Check) -> Rows:
    """The rows of a file with one JSON object in each line, checked; empty lines are passed over.

    Raises ValueError with the number of the first line that is at fault.
    """
    return Rows(_lines(path, check))


def _lines(path: Path, check: Check) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not line:
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                fault = error.msg if isinstance(error, json.JSONDecodeError) else "it is not UTF-8"
                raise ValueError(
                    f"line {number} of {path.name} is not valid JSON ({fault}): correct or remove that line"
                ) from error
            _encoded(row, f"line {number} of {path.name}", check)
            yield line


def _encoded(row: Any, where: str, check: Check) -> bytes:
    if not isinstance(row, dict):
        raise ValueError(
            f'{where} is a {type(row).__name__}: expected an object like {{"image_file": "1.jpg", "text": "a cat"}}'
        )
    check(row, where)
    return json.dumps(row).encode()
