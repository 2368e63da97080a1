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

from ipadapter_core.files.whole import whole

from ..evidence.orders import Order
from ..evidence.studio import Studio
from ..places import ROOT, Places
from ..world.scenes import ATTRIBUTES, captions
from .data import training_pictures
from .sheets import interleaved, save_rows

NUM_PICTURES = 20_000  # of the training pictures
SIMPLE = "pocket_simple"
OUTLINE: dict[str, object] = {
    "optimiser.loss_weighting": "none", "optimiser.learning_rate": 1e-3, "data.drop_text": 0.88, "run.steps": 1_400,
}  # fmt: skip
LIST = "pictures/train.json"  # in the work folder, as the presets name it
PRESETS = Path(__file__).parents[1] / "presets"


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
    with whole(path) as part:
        part.write_text(json.dumps(rows))


def train(name: str, places: Places) -> None:
    """Cache, then twice train or go on and export: commands that anyone could type.

    First as the preset says, where noisy timesteps weigh most: layout, pattern, size. Then OUTLINE, where all weigh
    the same and nearly all text is dropped, since captions always name the shape: its outline.
    """
    write_list(places)
    first = places.work / "runs" / f"{name}.safetensors"
    settings = own_settings(name, places)
    trainer("cache", preset(name), *chosen(settings))
    run(name, settings, places.work / "runs" / name, first)
    settings |= OUTLINE | {"adapter.start_from": first}
    run(name, settings, places.work / "runs" / f"{name}_outline", places.adapter(name))


def own_settings(name: str, places: Places) -> dict[str, object]:
    """What the preset does not know: where the parts are, whatever the working folder, and which kind it is."""
    return {
        "model.base": places.base, "model.encoder": places.encoder, "data.source": places.work / LIST,
        "data.cache": places.work / "cache",
    } | ({"adapter.attention": "appended"} if name == SIMPLE else {})  # fmt: skip


def run(name: str, settings: dict[str, object], folder: Path, out: Path) -> None:
    """Train, or go on with, a run, and export it."""
    if (folder / "config.toml").exists():
        trainer("resume", folder)
    else:
        trainer("train", preset(name), *chosen(settings | {"run.folder": folder}))
    out.parent.mkdir(parents=True, exist_ok=True)
    trainer("export", folder, out, "--half")


def preset(name: str) -> Path:
    """The file that says how an adapter is trained first."""
    return PRESETS / f"{'pocket' if name == SIMPLE else name}.toml"


def chosen(settings: dict[str, object]) -> list[str]:
    """Settings as arguments."""
    values = {key: value if isinstance(value, int | float) else str(value) for key, value in settings.items()}
    return [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]


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
