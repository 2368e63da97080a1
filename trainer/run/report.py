"""`report.html`: a run on one page with everything inside: curves, grids, checkpoints, starts, data, config."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ipadapter_core.files.whole import whole

from ..data.loader import REPORT as SKIPPED
from ..data.report import read_report
from ..evaluation.charts import Point, chart
from ..evaluation.html import figure, head, jpeg, table
from ..settings.config import Config
from . import checkpoint, folder
from .best import best, held_out_losses
from .history import Lines, curve, last, read_lines
from .log import LINES, RECORD

PAGE = "report.html"
GRIDS = 6  # of all grids, evenly spread, the first and the last among them
RATIO = "attention_ratio"
# Curves of one plot, by their names in the log.
PLOTS: dict[str, dict[str, str]] = {
    "held-out loss": {
        "its picture": "held_out_loss",
        "no image": "held_out_loss/no_image",
        "shuffled": "held_out_loss/shuffled",
    },
    "training loss": {"loss": "loss"},
    "training loss by noise": {f"q{number}": f"loss/q{number}" for number in (1, 2, 3, 4)},
    "image over text attention": {"median of the layers": RATIO},
    "CLIP scores of the grid": {"CLIP-I": "clip_i", "CLIP-T": "clip_t"},
    "gradient norm": {"norm": "gradient_norm"},
    "learning rate": {"rate": "learning_rate"},
    "samples per second": {"samples/s": "samples_per_second"},
    "share of the time waited for data": {"share": "data_wait"},
}


def write_report(run: Path) -> Path:
    """Write a run's page anew, whole. Raises ValueError when it is no run, OSError when it cannot be written."""
    text = to_html(run, folder.read(run))
    with whole(run / PAGE) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return run / PAGE


def to_html(run: Path, config: Config) -> str:
    """The page of a run in its folder."""
    lines, starts = read_lines(run / LINES), read_lines(run / RECORD)
    step = max((line["step"] for line in lines if "step" in line), default=0)
    about = (
        f"Step {step:,} of {config.run.steps:,}, {config.samples_per_step} samples a step. {config.adapter.family} on "
        f"{config.model.base}, {config.optimiser.name}, {config.run.precision}. Written {_when(time.time())}."
    )
    parts = [
        head(f"Training {run.resolve().name}"), f"<p>{escape(about)}</p>", *_curves(lines),
        "<h2>Checkpoints</h2>", _checkpoints(run), *_grids(run), "<h2>Starts</h2>", _starts(starts),
        "<h2>Data</h2>", _data(run, config, starts),
        f"<h2>Config</h2><pre>{escape(_text(run / folder.CONFIG))}</pre></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _curves(lines: Lines) -> list[str]:
    plots = [
        chart(title, {name: curve(lines, key) for name, key in names.items()}, "the step")
        for title, names in PLOTS.items()
    ]
    ratios = {key: value for key, value in last(lines, [RATIO]).items() if key.startswith(f"{RATIO}/")}
    points = [Point(number, value, value, value) for number, value in enumerate(ratios.values(), 1)]
    return [*plots, chart("image over text attention, last validation,", {"ratio": points}, "the layer")]


def _checkpoints(run: Path) -> str:
    losses, lowest = held_out_losses(run), best(run)
    rows = []
    for step in checkpoint.steps_of(run):
        place = checkpoint.folder(run) / checkpoint.name(step)
        size = sum(file.stat().st_size for file in place.iterdir())
        loss = f"{losses[step]:.5f}" if step in losses else "-"
        rows.append([place.name, f"{loss} (best)" if step == lowest else loss, f"{size / 2**20:,.1f} MiB"])
    rows += [[path.name, "-", "set aside"] for path in sorted(checkpoint.folder(run).glob("aside-*"))]
    return table(["checkpoint", "held-out loss", "size"], rows)


def _grids(run: Path) -> list[str]:
    found = sorted((run / "samples").glob("step-*.png"))
    if not found:
        return []
    places = sorted({round(place * (len(found) - 1) / (GRIDS - 1)) for place in range(GRIDS)})
    shown = []
    for path in (found[place] for place in reversed(places)):
        with Image.open(path) as picture:
            shown.append(figure(path.stem, jpeg(picture.convert("RGB"))))
    return [f"<h2>Grids</h2><p>{len(shown)} of {len(found)}, the newest first.</p>", *shown]


def _starts(starts: Sequence[dict[str, Any]]) -> str:
    rows = [
        [_when(start.get("time", 0.0)), start.get("step", "?"), start.get("processes", "?"), _changed(start) or "-"]
        for start in starts
    ]
    return table(["start", "from step", "processes", "changed"], rows)


def _changed(start: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {before} to {after}" for key, (before, after) in start.get("changed", {}).items())


def _data(run: Path, config: Config, starts: Sequence[dict[str, Any]]) -> str:
    samples = starts[-1].get("made_with", {}).get("samples", "?") if starts else "?"
    skipped = Counter(fault.kind for fault in read_report(run / SKIPPED))
    rows = [
        ["source", config.data.source],
        ["samples", samples],
        ["held out", config.data.held_out],
        ["resolution", config.data.resolution],
        ["cache", config.data.cache or "none"],
        ["skipped", ", ".join(f"{count} {kind}" for kind, count in skipped.items()) or "none"],
    ]
    return table(["", ""], rows)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
