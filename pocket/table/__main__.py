"""`python -m pocket.table`: the table of `python -m trainer evaluate` on pocket, with its adapters and its own judges.

    python -m pocket.table             docs/evaluation/: result, table and page
    python -m pocket.table --limit 32  a quick look, in out/pocket/table

512 references of a range of seeds that nothing else uses, as a folder in COCO's layout; everything after that is the
command that anybody gives. Pocket's own judge then counts attributes of the same pictures. Interrupted, it goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.__main__ import main as trainer

from ..evidence.figures import percents, shares
from ..places import ROOT, Places
from ..training import judge
from ..training.data import Pictures, references
from ..world.scenes import ATTRIBUTES, SHAPES, caption
from ..world.settings import GUIDANCE
from .clip import report, write_clip

SEED, COUNT = 9_000, 512  # of the references
SAMPLES, STEPS, BATCH = 1, 25, 32
TEXT_REFERENCES = 32
ADAPTERS = ("pocket", "pocket_plus", "pocket_simple")
KEPT = ("result.json", "table.md", "index.html")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pocket.table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=0, help="the first N references alone")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="say what it would take")
    options = parser.parse_args()
    places = Places()
    work = places.work / "table"
    data, out = references(COUNT, SEED), work / (f"first-{options.limit}" if options.limit else "all")
    clip = write_clip(places, work / "clip")
    print("pocket's CLIP, texts told apart on held-out pictures:", report(places, clip, SEED + 1))
    code = trainer([
        "evaluate", *(str(places.adapter(name)) for name in ADAPTERS), "--no-adapter",
        "--base", str(places.base), "--encoder", str(places.encoder), "--clip", str(clip),
        "--data", str(write_coco(data, work / "coco")), "--split", "pocket", "--out", str(out),
        "--samples", str(SAMPLES), "--steps", str(STEPS), "--guidance", str(GUIDANCE), "--batch", str(BATCH),
        "--text-prompts", *(f"a {shape}" for shape in SHAPES), "--text-references", str(TEXT_REFERENCES),
        "--processes", str(options.processes),
        *(["--limit", str(options.limit)] if options.limit else []), *(["--dry-run"] if options.dry_run else []),
    ])  # fmt: skip
    if code or options.dry_run:
        return code
    said = attributes(places, data, out)
    print(said)
    if not options.limit:
        folder = ROOT / "docs" / "evaluation"
        folder.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copy(out / name, folder / name)
        (folder / "attributes.md").write_text(said, encoding="utf-8")
    return 0


def write_coco(data: Pictures, folder: Path) -> Path:
    """References as a folder in COCO's layout, with all four captions of each, the fullest first."""
    path = folder / "annotations" / "captions_pocket.json"
    if path.exists():
        return folder
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "pocket").mkdir(exist_ok=True)
    images, captions = [], []
    for number, (scene, values) in enumerate(zip(data.scenes, data.bytes)):
        file = f"{number:012d}.png"
        Image.fromarray(values.permute(1, 2, 0).numpy()).save(folder / "pocket" / file)
        images.append({"id": number, "file_name": file})
        for place, (colour, ground) in enumerate(((True, True), (True, False), (False, True), (False, False))):
            text = caption(scene, colour, ground)
            captions.append({"id": 4 * number + place, "image_id": number, "caption": text})
    path.write_text(json.dumps({"images": images, "annotations": captions}), encoding="utf-8")
    return folder


def attributes(places: Places, data: Pictures, out: Path) -> str:
    """What pocket's judge sees in the first sample of each reference: shares of attributes as the reference's."""
    ruler, result = judge.load(places), json.loads((out / "result.json").read_text(encoding="utf-8"))
    scenes = data.scenes[: len(result["keys"])]
    lines = ["| first sample | n | " + " | ".join([*ATTRIBUTES, "all five"]) + " |", "|---" * 8 + "|"]
    for row in result["systems"]:
        folder = out / "pictures" / row["name"].replace(" ", "_")
        found = ruler.verdict(torch.stack([read(folder / f"{key}_0.png") for key in result["keys"]])).attributes
        both = [(row["name"], scenes), (f"{row['name']}, wrong reference", scenes.roll(1, 0))]
        for name, wanted in both:
            lines.append(f"| {name} | {len(scenes)} | {' | '.join(percents(shares(found == wanted)))} |")
    return "\n".join(lines) + "\n"


def read(path: Path) -> Tensor:
    """[3, 64, 64] of 0..1."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


if __name__ == "__main__":
    sys.exit(main())
