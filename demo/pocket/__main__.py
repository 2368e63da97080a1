"""`python -m demo.pocket`: train pocket from nothing, stage by stage; what is there already is kept.

    python -m demo.pocket                     train every stage whose weights are missing
    python -m demo.pocket base                this stage alone
    python -m demo.pocket base --again        train it anew, from the first step

A training that was interrupted goes on from its last checkpoint. Each stage ends with a report and a contact sheet.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import autoencoder, base, judge, text, vision
from .places import Places


@dataclass(frozen=True)
class Stage:
    """result: the file that shows that the stage is done. checkpoint: its name in the work folder."""

    train: Callable[[Places], None]
    report: Callable[[Places], dict[str, Any]]
    result: Callable[[Places], Path]
    checkpoint: str


STAGES = {
    "autoencoder": Stage(
        autoencoder.train, autoencoder.report, lambda places: places.base / "vae" / "config.json", "autoencoder"
    ),
    "text": Stage(text.train, text.report, lambda places: places.base / "text_encoder" / "config.json", "text_encoder"),
    "judge": Stage(judge.train, judge.report, lambda places: places.judge, "judge"),
    "vision": Stage(vision.train, vision.report, lambda places: places.encoder / "model.safetensors", "image_encoder"),
    "base": Stage(base.train, base.report, lambda places: places.base / "unet" / "config.json", "base"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.pocket", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all by default")
    parser.add_argument("--again", action="store_true", help="train the stages anew")
    parser.add_argument("--report", action="store_true", help="only measure what is there")
    parser.add_argument("--weights", type=Path, default=Places.weights, help="folder of the weights")
    options = parser.parse_args()
    if unknown := set(options.stages) - STAGES.keys():
        parser.error(f"there is no stage {min(unknown)}: choose of {', '.join(STAGES)}")
    places = Places(options.weights)
    for name, stage in STAGES.items():
        if options.stages and name not in options.stages:
            continue
        if options.again:
            (places.work / f"{stage.checkpoint}.pt").unlink(missing_ok=True)
        began = time.monotonic()
        if not options.report:
            if stage.result(places).exists() and not options.again:
                print(f"{name}: there")
                continue
            stage.train(places)
        print(
            json.dumps({"stage": name, "seconds": round(time.monotonic() - began), **stage.report(places)}), flush=True
        )


if __name__ == "__main__":
    main()
