"""`python -m pocket`: train pocket from nothing, stage by stage; what is there already is kept.

    python -m pocket                     train every stage whose weights are missing
    python -m pocket base                this stage alone
    python -m pocket base --again        train it anew, from the first step
    python -m pocket shuffle --device cuda
                                         the rival of docs/evaluation.md, which is trained by its name alone

A training that was interrupted goes on from its last checkpoint. Each stage ends with a report and a contact sheet.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .places import Places
from .training import adapters, autoencoder, base, control, judge, look, shuffle, text, vision

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Stage:
    """result: the file that is written last, so it shows that the stage is done.

    kept: what it keeps in the work folder, as patterns of names; forgotten when the stage is trained anew.
    is_apart: trained only when it is named, since its weights are not in the repository.
    devices: it can be computed on.
    """

    train: Callable[..., None]
    report: Callable[..., dict[str, Any]]
    result: Callable[[Places], Path]
    kept: tuple[str, ...]
    is_apart: bool = False
    devices: tuple[str, ...] = ("cpu",)

    def on(self, device: str) -> dict[str, str]:
        """What `train` and `report` are given of the device."""
        return {"device": device} if len(self.devices) > 1 else {}


def _adapter(name: str) -> Stage:
    return Stage(
        partial(adapters.train, name),
        partial(adapters.report, name),
        lambda places: places.adapter(name),
        (f"runs/{name}", f"runs/{name}.safetensors", f"runs/{name}_outline"),
    )


STAGES = {
    "autoencoder": Stage(
        autoencoder.train,
        autoencoder.report,
        lambda places: places.base / "vae" / WEIGHTS,
        ("autoencoder.pt", "decoder.pt", "*.latents.pt"),
    ),
    "text": Stage(
        text.train,
        text.report,
        lambda places: places.base / "text_encoder" / "model.safetensors",
        ("text_encoder.pt",),
    ),
    "judge": Stage(judge.train, judge.report, lambda places: places.judge, ("judge.pt",)),
    "vision": Stage(
        vision.train,
        vision.report,
        lambda places: places.encoder / "model.safetensors",
        ("image_encoder.pt", "image_encoder_heads.pt"),
    ),
    "base": Stage(base.train, base.report, lambda places: places.base / "unet" / WEIGHTS, ("base.pt",)),
    "pocket": _adapter("pocket"),
    "pocket_plus": _adapter("pocket_plus"),
    adapters.SIMPLE: _adapter(adapters.SIMPLE),
    "controlnet": Stage(control.train, control.report, lambda places: places.controlnet / WEIGHTS, ("controlnet.pt",)),
    "look": Stage(look.train, look.report, lambda places: places.look, ("look.pt", "look_whole.pt")),
    "shuffle": Stage(
        shuffle.train,
        shuffle.report,
        lambda places: places.shuffle / WEIGHTS,
        ("shuffle.pt", "shuffle"),
        is_apart=True,
        devices=("cpu", "cuda"),
    ),
}
KEPT = tuple(name for name, stage in STAGES.items() if not stage.is_apart)  # whose weights the repository has


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pocket", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; by default {KEPT[0]} to {KEPT[-1]}"
    )
    parser.add_argument("--again", action="store_true", help="train the stages anew")
    parser.add_argument("--report", action="store_true", help="only measure what is there")
    parser.add_argument("--weights", type=Path, default=Places.weights, help="folder of the weights")
    parser.add_argument("--device", default="cpu", help="cuda: of the stages that can (shuffle)")
    options = parser.parse_args()
    if unknown := set(options.stages) - STAGES.keys():
        parser.error(f"there is no stage {min(unknown)}: choose of {', '.join(STAGES)}")
    wanted = {name: STAGES[name] for name in STAGES if name in (options.stages or KEPT)}
    if unable := [name for name, stage in wanted.items() if options.device not in stage.devices]:
        parser.error(f"the stage {unable[0]} runs on {' or '.join(STAGES[unable[0]].devices)}, not {options.device!r}")
    places = Places(options.weights)
    for name, stage in wanted.items():
        if options.again:
            for path in [path for pattern in stage.kept for path in places.work.glob(pattern)]:
                forget(path)
        began = time.monotonic()
        if not options.report:
            if stage.result(places).exists() and not options.again:
                print(f"{name}: there")
                continue
            stage.train(places, **stage.on(options.device))
        report = stage.report(places, **stage.on(options.device))
        print(json.dumps({"stage": name, "seconds": round(time.monotonic() - began), **report}), flush=True)


def forget(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
