"""`python -m trainer check`: a table of the data, a report of what would be skipped, a sheet of what is seen."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..base.encoder import encoder_facts
from ..base.tokenizer import clip_tokenizer
from ..data.batch import Skipped
from ..data.identity import read_identity
from ..data.pictures import Picture, Unusable, decode
from ..data.record import Source, UnreadableError
from ..data.report import write_report
from ..data.sets import Sets
from ..data.sources import open_source
from ..data.workers import results
from ..settings.config import Config, DataConfig
from ..settings.load import PRESETS, load_config
from .sheet import writable_picture, write_sheet

NAMED = 5  # examples of each fault in the table
MAX_TOKENS = 77  # of a text encoder; longer captions are cut


@dataclass(frozen=True)
class Examined:
    """One sample. size: width and height, turned as EXIF says. content, look: hashes of the file and of its looks."""

    name: str
    captions: tuple[str, ...]
    size: tuple[int, int] = (0, 0)
    content: bytes = b""
    look: int = 0
    fault: Unusable | None = None


def run_check(options: argparse.Namespace) -> int:
    """The command: print the table, write the report and, if asked for, the sheet.

    Raises ValueError when the data cannot be opened.
    """
    config = _config(options)
    if options.sheet:
        writable_picture(options.sheet, "--sheet")
    source = open_source(config.data)
    summary = Summary(config.data)
    for examined in _examine(source, config.data):
        summary.add(examined)
    report = Path(f"{options.data.stem}_check.jsonl")
    try:
        write_report(report, [*source.left_out.faults, *summary.faults])
        if options.sheet:
            write_sheet(
                options.sheet,
                source,
                config.data,
                encoder_facts(config.model.encoder, config.model.encoder_architecture),
            )
    except OSError as error:
        raise ValueError(
            f"{error.filename or report} cannot be written ({error.strerror}): run it in another folder"
        ) from error
    print("\n".join([*summary.lines(), *_source_lines(source), f"report               {report}"]))
    if options.sheet:
        print(f"sheet                {options.sheet}")
    return 0


def _config(options: argparse.Namespace) -> Config:
    if options.data.suffix == ".toml":
        return load_config(options.data, options.set)
    config = load_config(PRESETS / "sd15.toml", options.set)
    # not by way of TOML, which cannot hold a name of other bytes than UTF-8
    return dataclasses.replace(config, data=dataclasses.replace(config.data, source=str(options.data)))


def _source_lines(source: Source) -> list[str]:
    """Where captions were found, and what lies in the data and is no sample."""
    places = ", ".join(f"{place} ({number:,})" for place, number in source.captions_from.most_common())
    sets = source.lines() if isinstance(source, Sets) else []
    return [
        *sets,
        f"captions from        {places or f'nowhere: looked for in {source.caption_places}'}",
        f"left out             {len(source.left_out):,}",
        *(f"  {line}" for line in source.left_out.lines()),
    ]


class Examination(Dataset[Examined]):
    """Every sample by index, decoded and judged as a training would."""

    def __init__(self, source: Source, data: DataConfig) -> None:
        self.source, self.data = source, data

    def __getitem__(self, index: int) -> Examined:
        try:
            record = self.source.read(index)
        except UnreadableError as fault:
            skipped = fault.skipped
            return Examined(skipped.name, (), fault=Unusable(skipped.kind, skipped.reason))
        decoded = decode(record.image, self.data.min_side)
        if isinstance(decoded, Image.Image) and record.condition is not None:
            seen = decode(record.condition)
            if isinstance(seen, Unusable):
                decoded = Unusable(seen.kind, f"its condition picture: {seen.reason}")
        if isinstance(decoded, Image.Image) and self.data.identity_column:
            face = read_identity(record.identity)
            decoded = face if isinstance(face, Unusable) else decoded
        if isinstance(decoded, Unusable):
            return Examined(record.name, record.captions, fault=decoded)
        return Examined(record.name, record.captions, decoded.size, _content(record.image), difference_hash(decoded))


def _examine(source: Source, data: DataConfig) -> Iterable[Examined]:
    loaded = DataLoader(
        Examination(source, data),
        batch_size=None,
        num_workers=data.workers,
        sampler=range(len(source)),
    )
    yield from tqdm(results(loaded), desc="checking", unit="sample", leave=False, total=len(source), dynamic_ncols=True)


@dataclass
class Summary:
    """What was found so far."""

    data: DataConfig
    faults: list[Skipped] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    captions: Counter[int] = field(default_factory=Counter)  # how many samples have so many captions
    texts: Counter[bytes] = field(default_factory=Counter)
    tokens: list[int] = field(default_factory=list)
    contents: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))
    looks: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._tokenizer = clip_tokenizer()

    def add(self, one: Examined) -> None:
        if one.fault:
            self.faults.append(Skipped(one.name, one.fault.kind, one.fault.reason))
            return
        self.sides.append(min(one.size))
        self.sizes[one.size] += 1
        texts = [text for text in one.captions if text]
        self.captions[len(texts)] += 1
        self.texts.update(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
        self.tokens += [len(ids) for ids in self._tokenizer(texts).input_ids] if texts else []
        self.contents[one.content].append(one.name)
        self.looks[one.look].append(one.name)

    def lines(self) -> list[str]:
        """The table."""
        usable, resolution = len(self.sides), self.data.resolution
        lines = [f"samples              {usable + len(self.faults):,}", f"usable               {usable:,}"]
        by_kind = defaultdict(list)
        for fault in self.faults:
            by_kind[fault.kind].append(fault)
        lines.append(f"skipped              {len(self.faults):,}")
        for kind, faults in sorted(by_kind.items()):
            lines += [
                f"  {kind:<19}{len(faults):,}",
                *(f"    {fault.name}: {fault.reason}" for fault in faults[:NAMED]),
            ]
            lines += [f"    and {len(faults) - NAMED:,} more, in the report"] if len(faults) > NAMED else []
        return (
            [*lines, *self._size_lines(resolution), *self._caption_lines(), *self._duplicate_lines()]
            if usable
            else lines
        )

    def _size_lines(self, resolution: int) -> list[str]:
        sides = np.array(self.sides)
        low, middle, high = np.percentile(sides, [5, 50, 95]).astype(int).tolist()
        common = ", ".join(f"{width} x {height} ({count:,})" for (width, height), count in self.sizes.most_common(3))
        small, large = int((sides < resolution).sum()), int((sides >= 1024).sum())
        return [
            f"shortest side        {sides.min()} to {sides.max()} px; 5 % {low}, half {middle}, 95 % {high}",
            f"  below {resolution:<13}{small:,} ({small / len(sides):.0%}), enlarged to it",
            f"  1024 and more      {large:,} ({large / len(sides):.0%})",
            f"sizes                {len(self.sizes):,}; most often {common}",
        ]

    def _caption_lines(self) -> list[str]:
        number, without = sum(self.texts.values()), self.captions[0]
        several = sum(count for texts, count in self.captions.items() if texts > 1)
        lines = [
            f"captions             {number:,}, {len(self.texts):,} different",
            f"  samples without    {without:,}",
            f"  samples with more  {several:,} (one is drawn each time)",
        ]
        if self.tokens:
            cut = sum(tokens > MAX_TOKENS for tokens in self.tokens)
            middle = int(np.median(self.tokens)) - 2  # without the marks of start and end
            lines.append(
                f"  length             half have {middle} tokens or fewer; {cut:,} have more than {MAX_TOKENS - 2}: cut"
            )
        return lines

    def _duplicate_lines(self) -> list[str]:
        return [
            *_repeated("same file", self.contents.values()),
            *_repeated("look alike", self.looks.values()),
        ]


def _repeated(what: str, groups: Iterable[Sequence[str]]) -> list[str]:
    repeated = sorted((group for group in groups if len(group) > 1), key=len, reverse=True)
    extra = sum(len(group) - 1 for group in repeated)
    shown = [f"  {', '.join(group[:NAMED])}{' ...' if len(group) > NAMED else ''}" for group in repeated[:NAMED]]
    return [f"{what:<21}{extra:,} beyond the first of their kind", *shown]


def _content(picture: Picture) -> bytes:
    if isinstance(picture, Image.Image):
        content = picture.tobytes()
    else:
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def difference_hash(image: Image.Image) -> int:
    """64 bits: whether each of 8 x 8 cells is brighter than the next; the same after other sizes and compressions."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)).astype(int)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
