"""How fast a training's data comes: out of a cache of SD1.5's shapes, and into a cache.

    python bench/reading.py [--check] [--samples 32768] [--family plus] [--cold]

- reading: the samples of an epoch in their order, out of a cache of bf16 latents, text states and features, stacked to
  batches of 8, in one process. Its files are sparse, so that they take no room on a disk. They are read once before;
  with --cold they are dropped from the page cache instead
- loader: the same by one loader process, with the noise that it draws and the way through shared memory
- caching: `python -m trainer cache` on small JPEG pictures with pocket's base and encoder, decoding included

An *open* is a file opened, and safetensors opens a file twice: for its header, and to map it. `--check` fails unless a
process reads 2,000 samples in a second of its CPU time (beside other jobs the wall clock says little), opens at most
one file for 100 samples of the first epoch, and sends no more bytes through the worker than are stored, and the noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ipadapter_core import Feature
from pocket.places import Places
from trainer.commands.cache import build_cache
from trainer.data import order
from trainer.data.batch import Batch, Item, collate
from trainer.data.cached import CachedReader
from trainer.data.cached_rows import sample_rows
from trainer.data.geometry import Geometry
from trainer.data.loader import Loader
from trainer.data.shards import PART, count_shards, shard_path, shard_rows, write_shard
from trainer.settings.config import Config
from trainer.settings.load import parse_config

SPEED, OPENS = 2_000, 1 / 100
LATENTS, STATES = (2, 4, 64, 64), (77, 768)
FEATURES: dict[str, tuple[Feature, tuple[int, ...]]] = {
    "base": ("pooled", (1024,)),
    "plus": ("penultimate", (257, 1280)),
}
BATCH = 8
PICTURES, SIDE = 512, 96


def write_sparse(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """A safetensors file with one bf16 tensor of zeros, which takes no room."""
    size = 2 * int(np.prod(shape))
    header = json.dumps({name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


def write_cache(folder: Path, count: int, family: str) -> None:
    """A complete cache of so many samples, each with a caption of its own."""
    feature, shape = FEATURES[family]
    parts = {"latents": ("moments", count, LATENTS), "text": ("states", count + 1, STATES)}
    parts |= {feature: ("features", count, shape)}
    side = (512, 512)
    for part, (name, rows, of_row) in {"samples": ("", count, ()), **parts}.items():
        shard = shard_rows(rows)
        (folder / part).mkdir(parents=True)
        (folder / part / PART).write_text(json.dumps({"rows": rows, "shard": shard, "made with": {}}))
        for number in range(count_shards(rows, shard)):
            mine = range(number * shard, min((number + 1) * shard, rows))
            if part == "samples":
                items = [Item(f"{index:09d}.jpg", "", Geometry(side, (0, 0), side)) for index in mine]
                write_shard(shard_path(folder / part, number), *sample_rows(items, [[index + 1] for index in mine]))
            else:
                write_sparse(shard_path(folder / part, number), name, (len(mine), *of_row))


def drop(folder: Path) -> None:
    """Take a folder's files out of the page cache."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(reader: CachedReader, config: Config, count: int) -> Iterator[Batch]:
    """The first samples of an epoch as the loader reads them, without noise."""
    nothing = torch.zeros(0)
    for first in range(0, count - BATCH + 1, BATCH):
        items = []
        for position in range(BATCH):
            place = order.sample_place(0, first // BATCH, position, BATCH, len(reader))
            found = reader.read(place, order.draws(0, first // BATCH, position), False)
            assert isinstance(found, Item)
            items.append(dataclasses.replace(found, drawn=nothing, noise=nothing))
        yield collate(items)


def timed(batches: Iterator[Batch], samples: int) -> dict[str, float]:
    """Samples of a second, by the clock and by this process' CPU time; MB of a sample."""
    first = next(batches)
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    for batch in batches:
        count += len(batch)
        if count >= samples:
            break
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = sum(value.nbytes for value in tensors(first)) / len(first) / 1e6
    return {"samples/s": round(count / wall, 1), "by CPU time": round(count / cpu, 1), "MB": round(size, 4)}


def tensors(batch: Batch) -> Iterator[Tensor]:
    for value in vars(batch).values():
        yield from (one for one in (value.values() if isinstance(value, dict) else [value]) if isinstance(one, Tensor))


def measure_reading(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    write_cache(folder, options.samples, options.family)
    if options.cold:
        drop(folder)
    began = time.perf_counter()
    reader = CachedReader(folder, FEATURES[options.family][0], options.samples)
    opening = time.perf_counter() - began
    parts = [part for part in (reader.samples, reader.latents, reader.text, reader.features) if part]
    config = parse_config({"run": {"batch_size": BATCH}, "data": {"workers": 1}})
    if not options.cold:
        for _ in read(reader, config, options.measured + BATCH):
            pass
    found = {"reading": timed(read(reader, config, options.samples), options.measured)}
    opens = 2 * sum(len(part._mapped) for part in parts)
    found["reading"] |= {"opens": round(opens / options.samples, 5), "opening s": round(opening, 2)}
    source: Any = reader  # of which nothing but the cache is read
    batches = Loader(config, source, reader).batches(0)
    found["loader"] = timed(batches, options.measured)
    return found


def measure_caching(folder: Path) -> dict[str, float]:
    """Samples of a second of a cache by pocket's base, in all and by this process' CPU time."""
    places, pictures = Places(), folder / "pictures"
    pictures.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        path = pictures / f"{number:04d}.jpg"
        Image.fromarray(random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"picture {number}")
    config = parse_config(
        {
            "model": {"base": str(places.base), "encoder": str(places.encoder)},
            "data": {"source": str(pictures), "cache": str(folder / "cache"), "resolution": 64},
            "run": {"device": "cpu"},
        }
    )
    wall, cpu = time.perf_counter(), time.process_time()
    build_cache(config)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"samples/s": round(PICTURES / wall, 1), "by CPU time": round(PICTURES / cpu, 1)}


def missed(rows: dict[str, dict[str, float]], family: str) -> list[str]:
    """The bars that are missed, in words."""
    (_, shape), reading = FEATURES[family], rows["reading"]
    stored = 2 * sum(int(np.prod(one)) for one in (LATENTS, STATES, shape)) / 1e6
    noise = 2 * 4 * int(np.prod(LATENTS[1:])) / 1e6
    out = []
    if family == "base" and reading["by CPU time"] < SPEED:
        out.append(f"{reading['by CPU time']} samples in a second of CPU time, fewer than {SPEED}")
    if reading["opens"] > OPENS:
        out.append(f"{reading['opens']} files opened for a sample, more than {OPENS}")
    if rows["loader"]["MB"] > 1.01 * (stored + noise):
        out.append(f"{rows['loader']['MB']} MB a sample, of which {stored + noise:.3f} are stored or noise")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail where a bar is missed")
    parser.add_argument("--samples", type=int, default=32_768, help="of the cache")
    parser.add_argument("--measured", type=int, default=4_096, help="samples that are timed")
    parser.add_argument("--family", choices=FEATURES, default="base")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before they are read")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_reading(options, Path(folder, "cache"))
        rows["caching"] = measure_caching(Path(folder, "made"))
    columns = ("samples/s", "by CPU time", "MB", "opens", "opening s")
    print(f"{'':10}" + "".join(f"{name:>14}" for name in columns))
    for name, row in rows.items():
        print(f"{name:10}" + "".join(f"{row.get(column, ''):>14}" for column in columns))
    faults = missed(rows, options.family)
    print(json.dumps({"bench": "reading", "family": options.family, "samples": options.samples, **rows}))
    for fault in faults:
        print(f"missed: {fault}", file=sys.stderr)
    return int(options.check and bool(faults))


if __name__ == "__main__":
    sys.exit(main())
