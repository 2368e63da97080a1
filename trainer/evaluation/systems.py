"""What is measured: adapters on their bases, a base alone, and folders of pictures that were made elsewhere."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipadapter_core import IPAdapter

from ..base.frozen import Frozen
from ..base.processor import Kind
from ..step.objective import Objective
from .coco import References, some
from .protocol import Protocol

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
NO_ADAPTER = "no adapter"
PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"  # of a name that is a folder's


@dataclass(frozen=True, eq=False)
class Drawn:
    """A base with an adapter, or alone. about: what shapes its pictures, by name, for people and to compare."""

    name: str
    frozen: Frozen
    objective: Objective
    adapter: IPAdapter | None
    kind: Kind
    resolution: int
    about: dict[str, Any]
    count: int = 0

    @property
    def parameters(self) -> str:
        """Those in the adapter's file, as the paper writes them: "22M", or whole below a million."""
        return f"{self.count / 1e6:.0f}M" if self.count >= 1e6 else f"{self.count:,}" if self.count else ""


@dataclass(frozen=True, eq=False)
class Given:
    """Pictures that are there: the files of each reference by its key, equally many of each."""

    name: str
    files: dict[str, tuple[Path, ...]]
    about: dict[str, Any]
    parameters: str = ""

    @property
    def samples(self) -> int:
        return len(next(iter(self.files.values())))


System = Drawn | Given


@dataclass(frozen=True, eq=False)
class Series:
    """A set of pictures of one system: with which text (of reference n the n-th, in turns), at which weight, of how
    many references, how many of each. text: whether it is of the part with texts."""

    system: System
    prompts: tuple[str, ...]
    weight: float
    samples: int
    references: int
    is_text: bool = False

    @property
    def name(self) -> str:
        return f"{self.system.name}, text, weight {self.weight:g}" if self.is_text else self.system.name

    @property
    def slug(self) -> str:
        """Its folder's name."""
        end = f"@text-{self.weight:g}" if self.is_text else ""
        return "".join(letter if letter in PLAIN else "_" for letter in self.system.name) + end

    def prompt(self, index: int, caption: str) -> str:
        """The text of a reference by its number."""
        return self.prompts[index % len(self.prompts)].replace("{caption}", caption)

    def shaping(self, protocol: Protocol) -> dict[str, Any]:
        """All that its pictures depend on beside the references."""
        if isinstance(self.system, Given):
            return self.system.about
        has_caption = any("{caption}" in prompt for prompt in self.prompts)
        return self.system.about | {
            "resolution": self.system.resolution,
            "prompts": list(self.prompts),
            "weight": self.weight,
            "samples": self.samples,
            "caption": protocol.caption if has_caption else 0,
            **{
                name: getattr(protocol, name)
                for name in ("sampler", "steps", "guidance", "negative", "seed", "precision", "batch")
            },
        }


def all_series(systems: Sequence[System], protocol: Protocol, count: int) -> list[Series]:
    """Every set of pictures that a table of `count` references needs. Raises ValueError when two have one name."""
    found = []
    for system in systems:
        samples = system.samples if isinstance(system, Given) else protocol.samples
        found.append(Series(system, (protocol.prompt,), protocol.weight, samples, count))
        if isinstance(system, Drawn) and system.adapter and protocol.text_prompts:
            with_text = min(count, protocol.text_references)
            found += [
                Series(system, protocol.text_prompts, weight, protocol.text_samples, with_text, is_text=True)
                for weight in protocol.text_weights
            ]
    slugs = [series.slug.casefold() for series in found]
    if twice := [series.name for series in found if slugs.count(series.slug.casefold()) > 1]:
        raise ValueError(f"two systems are named {twice[0]!r}: name one, NAME=PATH")
    return found


def read_folder(name: str, folder: Path, references: References) -> Given:
    """Pictures named ID.png, or ID_0.png, ID_1.png and so on, by the ids of references.

    Raises ValueError, with how many and which, when references have none or not equally many.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} for the system {name}")
    known = {_bare(item.key): item.key for item in references.items}
    found: dict[str, list[tuple[int, Path]]] = {}
    strange = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        stem, _, number = path.stem.rpartition("_")
        if _bare(path.stem) in known:
            found.setdefault(known[_bare(path.stem)], []).append((0, path))
        elif number.isdecimal() and _bare(stem) in known:
            found.setdefault(known[_bare(stem)], []).append((int(number), path))
        else:
            strange.append(path.name)
    missing = [item.key for item in references.items if item.key not in found]
    also = f"; {len(strange)} files there name no reference: {some(strange)}" if strange else ""
    if missing:
        raise ValueError(
            f"{folder} has no picture of {len(missing)} of {len(references)} references: {some(missing)}{also}; "
            "expected names as ID.png or ID_0.png"
        )
    counts = {key: len(files) for key, files in found.items()}
    most = max(counts.values())
    if fewer := sorted(key for key, count in counts.items() if count < most):
        raise ValueError(
            f"{folder} has {most} pictures of some references and fewer of {len(fewer)}: {some(fewer)}: "
            "give equally many"
        )
    if strange:
        logger.warning("%s: %d files name no reference and are left out: %s", folder, len(strange), some(strange))
    files = {key: tuple(path for _, path in sorted(one)) for key, one in found.items()}
    paths = [path for one in files.values() for path in one]
    words = "".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in sorted(paths))
    about = {"pictures": folder.name, "files": len(paths), "digest": hashlib.sha256(words.encode()).hexdigest()[:16]}
    return Given(name, files, about | ({"strange": len(strange)} if strange else {}))


def fingerprint(name: str) -> str:
    """Of a file by its content, of a folder by the names and sizes of what is in it, of a tag the tag."""
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        words = "".join(f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n" for file in files)
        return hashlib.sha256(words.encode()).hexdigest()[:16]
    if not path.is_file():
        return name
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 22):
            digest.update(part)
    return digest.hexdigest()[:16]


def _bare(key: str) -> str:
    """A number without its zeros, so that 139.png is COCO's 000000000139.jpg."""
    return str(int(key)) if key.isdecimal() else key
