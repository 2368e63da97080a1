"""Stage 6, the adapters: `python -m trainer` on pocket, as on any base. Nothing here is special but the pictures.

pocket         4 tokens from the pooled embedding
pocket_plus    16 queries on the penultimate states
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image
from tqdm.auto import tqdm

from .data import training_pictures
from .evidence.orders import Order
from .evidence.studio import Studio
from .places import ROOT, Places
from .scenes import ATTRIBUTES, captions
from .sheets import interleaved, save_rows

NUM_PICTURES = 20_000  # of the training pictures
SIMPLE = "pocket_simple"
LIST = "pictures/train.json"  # in the work folder, as the presets name it


def write_list(places: Places) -> None:
    """The training pictures as files, and the list with their captions that the trainer reads."""
    path = places.work / LIST
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data, rows = training_pictures(places.work), []
    for number in tqdm(range(NUM_PICTURES), desc="write pictures", unit="picture"):
        name = f"{number:05d}.png"
        Image.fromarray(data.bytes[number].permute(1, 2, 0).numpy()).save(path.parent / name)
        rows.append({"image_file": name, "text": captions(data.scenes[number])})
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(rows))
    temporary.replace(path)


def train(name: str, places: Places) -> None:
    """Cache, train or go on, and export: three commands that anyone could type."""
    write_list(places)
    run, preset = places.work / "runs" / name, "pocket" if name == SIMPLE else name
    settings = {
        "model.base": places.base, "model.encoder": places.encoder, "data.source": places.work / LIST,
        "data.cache": places.work / "cache", "run.folder": run,
    } | ({"adapter.attention": "appended"} if name == SIMPLE else {})  # fmt: skip
    with_settings = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(str(value))}")]
    trainer("cache", preset, *with_settings)
    if (run / "config.toml").exists():
        trainer("resume", run)
    else:
        trainer("train", preset, *with_settings)
    places.adapter(name).parent.mkdir(parents=True, exist_ok=True)
    trainer("export", run, places.adapter(name), "--half")


def trainer(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "trainer", *map(str, arguments)], check=True, cwd=ROOT)


@torch.no_grad()
def report(name: str, places: Places, count: int = 128) -> dict[str, object]:
    """Image alone, on combinations held out: the share of pictures that agree with their reference, by the judge."""
    studio, order = Studio(places), Order(count, name)
    made = studio.made(order)
    references = studio.references(order.world, 64)
    save_rows(places.sheets / f"{name}_image_only.png", interleaved(references, made.pictures[:64], 16))
    shares = {word: round(float(made.right[:, place].float().mean()), 4) for place, word in enumerate(ATTRIBUTES)}
    return {
        "pictures": count,
        "guidance": order.guidance,
        "right": shares,
        "all": round(float(made.right.all(1).float().mean()), 4),
    }
