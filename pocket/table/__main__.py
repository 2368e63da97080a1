"""`python -m pocket.table`: the table of `python -m trainer evaluate` on pocket, with its adapters and its own judges.

    python -m pocket.table --device cuda --batch 256   docs/evaluation/: result, table and page
    python -m pocket.table --limit 32 --no-rival       a quick look, in out/pocket/table

512 references of a range of seeds that nothing else uses, as a folder in COCO's layout; the rival's pictures, by a
ControlNet that is trained first where it is not there; everything after that is the command that anybody gives.
Pocket's own judge then counts attributes of the same pictures. Interrupted, it goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.__main__ import main as trainer
from trainer.base.device import choose_device
from trainer.evaluation.coco import read_coco

from ..evidence.figures import Figure, mean, percents
from ..places import ROOT, Places
from ..training import judge
from ..training.data import Pictures, references
from ..world.scenes import ATTRIBUTES, SHAPES, caption
from ..world.settings import GUIDANCE
from . import rival
from .clip import report, write_clip

SEED, COUNT, SPLIT = 9_000, 512, "pocket"  # of the references
SAMPLES, STEPS, BATCH, NOISES = 4, 25, 32, 0  # pictures of each; of the sampler; references at a time; their seed
ADAPTERS = ("pocket", "pocket_plus", "pocket_simple")
KEPT = ("result.json", "table.md", "index.html")


def main() -> int:
    options = read_options()
    places, limit = Places(), options.limit or COUNT
    work = places.work / "table"
    data, out = references(COUNT, SEED), work / (f"first-{options.limit}" if options.limit else "all")
    with timed("judge"):
        clip = write_clip(places, work / "clip")
        print("pocket's CLIP, texts told apart on held-out pictures:", report(places, clip, SEED + 1))
        coco = write_coco(data, work / "coco")
    given = []
    if not (options.no_rival or options.dry_run):
        with timed("rival"):
            items = read_coco(coco, SPLIT, limit=limit).items
            device = choose_device(options.device)
            folder = rival.write_pictures(places, data, items, options.samples, STEPS, NOISES, device, out)
            given = ["--pictures", f"{rival.NAME}={folder}"]
    with timed("evaluate"):
        code = trainer([
            "evaluate", *(str(places.adapter(name)) for name in ADAPTERS), "--no-adapter", *given,
            "--base", str(places.base), "--encoder", str(places.encoder), "--clip", str(clip),
            "--data", str(coco), "--split", SPLIT, "--out", str(out), "--samples", str(options.samples),
            "--steps", str(STEPS), "--guidance", str(GUIDANCE), "--batch", str(options.batch), "--seed", str(NOISES),
            "--text-prompts", *(f"a {shape}" for shape in SHAPES), "--text-references", str(options.text_references),
            "--limit", str(options.limit), "--device", options.device, "--processes", str(options.processes),
            *(["--dry-run"] if options.dry_run else []),
        ])  # fmt: skip
    if code or options.dry_run:
        return code
    with timed("attributes"):
        said = attributes(places, data, out)
    print(said)
    folder = options.to or (None if options.limit else ROOT / "docs" / "evaluation")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copy(out / name, folder / name)
        (folder / "attributes.md").write_text(said, encoding="utf-8")
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pocket.table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=0, help="the first N references alone")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"pictures of each reference ({SAMPLES})")
    parser.add_argument("--text-references", type=int, default=COUNT, help=f"references that get a text too ({COUNT})")
    parser.add_argument("--no-rival", action="store_true", help=f"without {rival.NAME}, which is trained first")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=BATCH, help=f"references at a time ({BATCH}; a GPU: 256)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--to", type=Path, help="folder of the result (docs/evaluation; with --limit none)")
    parser.add_argument("--dry-run", action="store_true", help="say what it would take, without the rival")
    return parser.parse_args()


@contextmanager
def timed(stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{stage}: {time.perf_counter() - began:.0f} s", flush=True)


def write_coco(data: Pictures, folder: Path) -> Path:
    """References as a folder in COCO's layout, with all four captions of each, the fullest first."""
    path = folder / "annotations" / f"captions_{SPLIT}.json"
    if path.exists():
        return folder
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / SPLIT).mkdir(exist_ok=True)
    images, captions = [], []
    for number, (scene, values) in enumerate(zip(data.scenes, data.bytes)):
        file = f"{number:012d}.png"
        Image.fromarray(values.permute(1, 2, 0).numpy()).save(folder / SPLIT / file)
        images.append({"id": number, "file_name": file})
        for place, (colour, ground) in enumerate(((True, True), (True, False), (False, True), (False, False))):
            text = caption(scene, colour, ground)
            captions.append({"id": 4 * number + place, "image_id": number, "caption": text})
    path.write_text(json.dumps({"images": images, "annotations": captions}), encoding="utf-8")
    return folder


def attributes(places: Places, data: Pictures, out: Path) -> str:
    """What pocket's judge sees in all pictures: shares of attributes as the reference's, resampled by references."""
    ruler, result = judge.load(places), json.loads((out / "result.json").read_text(encoding="utf-8"))
    keys = result["keys"]
    scenes = data.scenes[: len(keys)]
    lines = ["| system | references | samples | " + " | ".join([*ATTRIBUTES, "all five"]) + " |", "|---" * 9 + "|"]
    for row in result["systems"]:
        name = row["name"].replace(" ", "_")
        folder = out / "pictures" / name if row["is_drawn"] else out / row["about"]["pictures"]
        files = [folder / f"{key}_{sample}.png" for key in keys for sample in range(row["samples"])]
        found = ruler.verdict(torch.stack([read(path) for path in files])).attributes.view(len(keys), row["samples"], 5)
        both = [(row["name"], scenes), (f"{row['name']}, wrong reference", scenes.roll(1, 0))]
        for name, wanted in both:
            words = " | ".join(percents(shares(found == wanted[:, None])))
            lines.append(f"| {name} | {len(keys)} | {row['samples']} | {words} |")
    return "\n".join(lines) + "\n"


def shares(right: Tensor) -> list[Figure]:
    """Of right attributes [N, S, 5] in S samples of each of N references: one for each, and all five at once."""
    return [*(mean(one.double().mean(1)) for one in right.unbind(2)), mean(right.all(2).double().mean(1))]


def read(path: Path) -> Tensor:
    """[3, 64, 64] of 0..1."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


if __name__ == "__main__":
    sys.exit(main())
