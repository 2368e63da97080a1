"""The pictures of the table's rival: from each reference, shuffled, by the ControlNet that was trained on such."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ipadapter_core.files.whole import whole
from trainer.evaluation.coco import Item
from trainer.evaluation.draw import seed_of
from trainer.evaluation.systems import fingerprint

from ..places import Places
from ..training import shuffle
from ..training.data import Pictures, to_bytes
from ..world.settings import GUIDANCE

NAME = "ControlNet Shuffle"
BATCH, THREADS = 256, 8  # pictures at a time; that write them


def trained(places: Places, device: str) -> Path:
    """The ControlNet's weights, trained where they are not there."""
    path = places.shuffle / "diffusion_pytorch_model.safetensors"
    if not path.exists():
        shuffle.train(places, device)
        print(f"{NAME}:", shuffle.report(places, device), flush=True)
    return path


def write_pictures(
    places: Places, data: Pictures, items: Sequence[Item], samples: int, steps: int, seed: int, device: str, out: Path
) -> Path:
    """A folder of `samples` pictures of each reference, by the noise that the table's adapters start from.

    A shuffle is another for each picture. Those that are there stay; other weights, another folder.
    """
    folder = out / f"shuffle-{fingerprint(str(trained(places, device)))}-{samples}"
    folder.mkdir(parents=True, exist_ok=True)
    all_ = [(number, item.key, sample) for number, item in enumerate(items) for sample in range(samples)]
    wanted = [one for one in all_ if not (folder / f"{one[1]}_{one[2]}.png").is_file()]
    if not wanted:
        return folder
    began, model = time.perf_counter(), shuffle.Shuffler(places, device)
    for start in range(0, len(wanted), BATCH):
        part = wanted[start : start + BATCH]
        nodes = torch.cat([shuffle.drawn_nodes(1, _generator(seed, f"{key} shuffled", n)) for _, key, n in part])
        noise = torch.stack([torch.randn(4, 8, 8, generator=_generator(seed, key, n)) for _, key, n in part])
        originals = data.of(torch.tensor([number for number, _, _ in part])).to(device)
        conditions = shuffle.shuffled(originals, nodes.to(device))
        made = model.pictures(conditions, noise.to(device), GUIDANCE, steps)
        with ThreadPoolExecutor(THREADS) as threads:
            paths = [folder / f"{key}_{n}.png" for _, key, n in part]
            list(threads.map(_write, paths, to_bytes(made).permute(0, 2, 3, 1).cpu()))
    print(f"{NAME}: {len(wanted)} pictures, {len(wanted) / (time.perf_counter() - began):.1f}/s", flush=True)
    return folder


def _generator(seed: int, key: str, sample: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, key, sample))


def _write(path: Path, values: Tensor) -> None:
    with whole(path) as part:
        Image.fromarray(values.numpy()).save(part, format="PNG")
