"""The speed and the memory of `python -m trainer evaluate`.

    python bench/evaluation.py [--check] [--device cuda] [--full] [--pictures 5000]

- sampling: `evaluate`'s own batch (encoding, denoising, decoding, writing) beside a plain loop of diffusers' pipeline
  with the same adapter, batch, steps and pictures to write; random weights, in turns, the fastest round counts
- scoring: pictures per second by a judge of CLIP's kind
- memory: resident bytes of a run of `--pictures` pictures of a tiny model, after a fifth of it and at its end

`--check` fails where sampling is below 0.9 of diffusers' speed, or memory grows by more than 5 %. `--full`: SD1.5 at
full width and 512 px; else a quarter of the width at 128 px, which two CPU cores do in a minute.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from tests.support import coco, evaluation, runs, tiny_models  # noqa: E402
from trainer.__main__ import main as trainer  # noqa: E402
from trainer.__main__ import parser  # noqa: E402
from trainer.commands.evaluate import prepare, read_protocol  # noqa: E402
from trainer.evaluation.draw import Batch, draw  # noqa: E402
from trainer.evaluation.systems import Drawn  # noqa: E402
from trainer.evaluation.work import Job, embed  # noqa: E402

SPEED, GROWTH, ROUNDS = 0.9, 0.05, 3
CONTEXT = 64


def write(folder: Path, full: bool) -> list[str]:
    """A base of SD1.5's layout with an adapter; the arguments of an evaluation of it."""
    widths = (320, 640, 1280, 1280) if full else (96, 192, 384, 384)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=widths, cross_attention_dim=CONTEXT, attention_head_dim=8
    )
    tiny_models.write_base(folder / "base", context=CONTEXT, unet=unet)
    tiny_models.write_encoder(folder / "encoder")
    config = runs.tiny_config(folder)
    evaluation.write_adapter(folder / "adapter.safetensors", config)
    coco.write_coco(folder / "coco")
    evaluation.write_clip(folder / "clip")
    return [
        "evaluate", str(folder / "adapter.safetensors"), "--base", str(folder / "base"), "--encoder",
        str(folder / "encoder"), "--clip", str(folder / "clip"), "--data", str(folder / "coco"),
        "--resolution", str(512 if full else 128), "--steps", "50" if full else "8", "--samples", "4",
    ]  # fmt: skip


def diffusers_loop(job: Job, system: Drawn, folder: Path, device: str) -> Any:
    """A function that makes a batch as a script with diffusers' pipeline would."""
    base: Any = system.frozen.base
    unet = UNet2DConditionModel.from_pretrained(folder / "base" / "unet").to(device)
    pipe = StableDiffusionPipeline(
        vae=base.vae, text_encoder=base.text_encoders[0], tokenizer=base.tokenizers[0], unet=unet,
        scheduler=DDIMScheduler.from_config(base.scheduler_config(), clip_sample=False, set_alpha_to_one=False,
                                            steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    assert system.adapter is not None
    tensors = system.adapter.state_dict()
    nested = {
        group: {key.removeprefix(f"{group}."): value for key, value in tensors.items() if key.startswith(f"{group}.")}
        for group in ("image_proj", "ip_adapter")
    }
    unet._load_ip_adapter_weights([nested])
    pipe.set_ip_adapter_scale(1.0)
    protocol = job.protocol

    def make(batch: Batch) -> None:
        features = system.frozen.image_features(batch.padded(), "pooled").repeat_interleave(protocol.samples, 0)
        embeds = torch.cat([torch.zeros_like(features), features])[:, None]
        made = pipe(
            [""] * len(features), ip_adapter_image_embeds=[embeds], num_inference_steps=protocol.steps,
            guidance_scale=protocol.guidance, height=system.resolution, width=system.resolution,
        ).images  # fmt: skip
        for number, picture in enumerate(made):
            picture.save(folder / f"{number}.png")

    return make


def sampling(options: argparse.Namespace, folder: Path) -> float:
    """Prints pictures per second of both, and of scoring; the ratio of the two."""
    arguments = [*write(folder, options.full), "--out", str(folder / "out"), "--batch", "1", "--device", options.device]
    values = parser().parse_args(arguments)
    job, _ = prepare(values, read_protocol(values), (0, 1))
    series = job.series[0]
    system = series.system
    assert isinstance(system, Drawn)
    theirs = diffusers_loop(job, system, folder, options.device)
    seconds: dict[str, list[float]] = {"ours": [], "diffusers": []}
    rows: list[list[Image.Image]] = []

    def ours(batch: Batch) -> None:
        rows[:] = draw(series, batch, job.protocol)
        job.store.write_pictures(series, batch.items, rows)

    for round_ in range(-1, ROUNDS):
        for name, make in (("ours", ours), ("diffusers", theirs)):
            batch = Batch(0, job.items(0), job.protocol.batch)
            began = time.perf_counter()
            make(batch)
            if options.device == "cuda":
                torch.cuda.synchronize()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - began)
    count = series.samples * job.protocol.batch
    ratio = min(seconds["diffusers"]) / min(seconds["ours"])
    for name, found in seconds.items():
        print(f"sampling, {name}: {count / min(found):.3f} pictures/s, batch {count}, {job.protocol.steps} steps, "
              f"{system.resolution} px")  # fmt: skip
    print(f"speed of diffusers' loop: {ratio:.2f}")
    embed(job.judges, rows, 1)
    began = time.perf_counter()
    for _ in range(8):
        embed(job.judges, rows, 1)
    print(f"scoring: {8 * count / (time.perf_counter() - began):.1f} pictures/s by a tiny CLIP")
    return ratio


def memory(options: argparse.Namespace, folder: Path) -> float:
    """Prints resident memory after a fifth of the pictures and at the end; the growth between them."""
    world = evaluation.write_world(folder)
    photos = [path for path in sorted((folder / "coco" / "val2017").iterdir())]
    images, captions = [], []
    count = -(-options.pictures // 4)
    for number in range(count):
        file = f"{number:012d}.jpg"
        (folder / "many" / "val2017").mkdir(parents=True, exist_ok=True)
        (folder / "many" / "val2017" / file).write_bytes(photos[number % len(photos)].read_bytes())
        images.append({"id": number, "file_name": file})
        captions.append({"id": number, "image_id": number, "caption": f"picture number {number}"})
    (folder / "many" / "annotations").mkdir()
    coco.write_annotations(folder / "many", images, captions)
    process, seen, done = psutil.Process(), [], threading.Event()
    pictures = folder / "out" / "pictures" / "plain"

    def watch() -> None:
        while not done.wait(1.0):
            there = sum(1 for _ in pictures.iterdir()) if pictures.exists() else 0
            seen.append((there, process.memory_info().rss))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()
    code = trainer([
        "evaluate", f"plain={folder / 'plain.safetensors'}", "--base", world.base, "--encoder", world.encoder,
        "--clip", world.clip, "--data", str(folder / "many"), "--out", str(folder / "out"), "--samples", "4",
        "--steps", "1", "--batch", "8", "--resolution", "32", "--device", options.device, "--resamples", "200",
    ])  # fmt: skip
    done.set()
    watcher.join()
    assert code == 0
    early = max(rss for there, rss in seen if there <= 0.25 * options.pictures)
    late = max([rss for there, rss in seen if there >= 0.9 * options.pictures] or [process.memory_info().rss])
    print(f"memory: {early / 2**20:.0f} MiB after a quarter of {options.pictures:,} pictures, {late / 2**20:.0f} at "
          f"the end ({late / early - 1:+.1%}); {options.pictures / (time.perf_counter() - began):.1f} pictures/s, "
          "sampled and scored")  # fmt: skip
    return late / early - 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true")
    options.add_argument("--full", action="store_true")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--pictures", type=int, default=5_000)
    values = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ratio = sampling(values, Path(name) / "speed")
        growth = memory(values, Path(name) / "memory")
    missed = [f"sampling at {ratio:.2f} of diffusers' speed, wanted {SPEED}"] if ratio < SPEED else []
    missed += [f"memory grew by {growth:.1%}, allowed {GROWTH:.0%}"] if growth > GROWTH else []
    print(*missed, sep="\n")
    return int(values.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
