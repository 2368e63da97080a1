"""The list of samples that were left out, and why: one JSON object in each line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..settings.load import is_unicode
from .batch import Skipped

logger = logging.getLogger(__name__)


class SkipReport:
    """Appends each sample once to `path`; several processes may write to it. None = only the log."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.names = {fault.name for fault in read_report(path)} if path else set()

    def add(self, faults: Iterable[Skipped]) -> None:
        """Name samples that are not named yet."""
        new = {fault.name: fault for fault in faults if fault.name not in self.names}
        if not new:
            return
        self.names |= new.keys()
        if self.path:
            self._append(self.path, "".join(_line(fault) for fault in new.values()))
        for fault in new.values():
            place = f"; all are named in {self.path}" if self.path else ""
            logger.warning("skipped %s: %s (%d so far%s)", fault.name, fault.reason, len(self.names), place)

    def _append(self, path: Path, lines: str) -> None:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:  # no reason to stop a training: the log names them too
            logger.warning("%s cannot be written (%s)", path, error.strerror)


def read_report(path: Path) -> list[Skipped]:
    """The samples that a report names; a line that a kill has cut off is passed over."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(Skipped(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return found


def write_report(path: Path, faults: Iterable[Skipped]) -> None:
    """Write a whole report, empty where nothing was left out."""
    path.write_text("".join(_line(fault) for fault in faults), encoding="utf-8")


def json_line(values: dict[str, Any]) -> str:
    """Values as one line of JSON that can be written whatever bytes are in a file's name."""
    line = json.dumps(values, ensure_ascii=False)
    return f"{line if is_unicode(line) else json.dumps(values)}\n"


def _line(fault: Skipped) -> str:
    return json_line({"name": fault.name, "kind": fault.kind, "reason": fault.reason})
