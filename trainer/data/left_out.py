"""What lies in the data and is no sample: counted by kind, the first of each kind named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .batch import Skipped

NAMED = 5  # of each kind


@dataclass
class LeftOut:
    """counts, names: by kind, e.g. ".svg files". faults: what should have been read and cannot be, each with why."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)
    faults: list[Skipped] = field(default_factory=list)

    def add(self, kind: str, name: str) -> None:
        """Count one more of a kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= NAMED:
            self.names.setdefault(kind, []).append(name)

    def fault(self, name: str, kind: str, reason: str) -> None:
        """Name what cannot be read."""
        self.faults.append(Skipped(name, kind, reason))

    def __len__(self) -> int:
        return sum(self.counts.values()) + len(self.faults)

    def lines(self) -> list[str]:
        """One line for each kind and each of the first faults; none where nothing was left out."""
        lines = [f"{fault.name}: {fault.kind}, {fault.reason}" for fault in self.faults[:NAMED]]
        more = len(self.faults) - NAMED
        lines += [f"and {more:,} more of these"] if more > 0 else []
        for kind, count in self.counts.most_common():
            names = ", ".join(self.names[kind]) + (" ..." if count > NAMED else "")
            lines.append(f"{count:,} {kind}: {names}")
        return lines
