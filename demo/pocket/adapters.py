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
from torch import Tensor
from tqdm.auto import tqdm

from ipadapter_core import IPAdapter, read_adapter
from trainer.adapter import load_adapter
from trainer.attention import Kind, install

from . import autoencoder, base, vision
from .data import references, training_pictures
from .judge import load as load_judge
from .places import ROOT, Places
from .sampling import Predict, sample
from .scenes import ATTRIBUTES, DEVELOP, captions
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


def load(places: Places, name: str) -> IPAdapter:
    return load_adapter(read_adapter(places.adapter(name)).tensors, base.load(places))


@torch.no_grad()
def features_of(places: Places, adapter: IPAdapter, pictures: Tensor) -> Tensor:
    """Pictures [N, 3, 64, 64] of 0..1 to what the adapter reads: [N, E], or [N, S, F]."""
    return vision.features(vision.load(places), vision.normalised(pictures), adapter.spec.feature)


@torch.no_grad()
def zero_features(places: Places, adapter: IPAdapter) -> Tensor:
    """What stands for "no picture": a zero embedding, or the states of zero pixels; one row."""
    if adapter.spec.feature == "pooled":
        return torch.zeros(1, adapter.spec.feature_dim)
    return vision.features(vision.load(places), torch.zeros(1, 3, 64, 64), adapter.spec.feature)


def prompted(
    places: Places, adapter: IPAdapter, pictures: Tensor, text: Tensor | None = None, weight: float = 1.0,
    kind: Kind = "decoupled",
) -> Predict:  # fmt: skip
    """A denoiser that follows pictures [N, 3, 64, 64], and text states [N, 77, 64] (None: the empty text)."""
    unet, empty = base.load(places), base.text_states(places, [""])
    prompts, count = install(unet, kind), len(pictures)
    features = torch.cat(
        [zero_features(places, adapter).expand_as(given := features_of(places, adapter, pictures)), given]
    )
    prompts.set(adapter.keys_values(adapter.image_tokens(features)), weight)
    states = torch.cat([empty.expand(count, -1, -1), (empty if text is None else text).expand(count, -1, -1)])

    def predict(latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        without, wanted = unet(torch.cat([latents, latents]), timestep, states).sample.chunk(2)
        return without, wanted

    return predict


@torch.no_grad()
def report(name: str, places: Places, count: int = 128, guidance: float = 4.0) -> dict[str, object]:
    """Image alone, on combinations held out: the share of pictures that agree with their reference, by the judge."""
    pictures, adapter, kind = (
        references(count, DEVELOP),
        load(places, name),
        "appended" if name == SIMPLE else "decoupled",
    )
    latents = []
    for rows in torch.arange(count).split(64):
        denoiser = prompted(places, adapter, pictures.of(rows), kind=kind)
        latents.append(sample(denoiser, len(rows), guidance, int(rows[0])))
    made = autoencoder.decode(autoencoder.load(places), torch.cat(latents))
    save_rows(places.sheets / f"{name}_image_only.png", interleaved(pictures.of(torch.arange(64)), made[:64], 16))
    right = load_judge(places).verdict(made).attributes == pictures.scenes
    shares = {word: round(float(right[:, place].float().mean()), 4) for place, word in enumerate(ATTRIBUTES)}
    return {
        "pictures": count,
        "guidance": guidance,
        "right": shares,
        "all": round(float(right.all(1).float().mean()), 4),
    }
