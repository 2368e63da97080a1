"""`python -m trainer show`: what a run has come to, in a few lines, and its report written anew."""

from __future__ import annotations

from pathlib import Path

from ..run import checkpoint, folder
from ..run.best import best, held_out_losses
from ..run.history import last, read_lines
from ..run.log import LINES, RECORD
from ..run.report import write_report


def show_run(run: Path) -> str:
    """A run's steps, last numbers, checkpoints and starts; writes its report.

    Raises ValueError when the folder is no run, or its report cannot be written.
    """
    config, lines = folder.read(run), read_lines(run / LINES)
    newest = last(lines, ["loss"])
    reached = max((line["step"] for line in lines if "step" in line), default=0)
    out = [f"{run}: step {reached:,} of {config.run.steps:,}"]
    if newest:
        out.append(
            f"loss {newest['loss']:.4f}, {newest['samples_per_second']:.3g} samples/s at step {newest['step']:,}"
        )
    if held_out := last(lines, ["held_out_loss"]):
        names = {
            "held_out_loss": "held-out",
            "held_out_loss/no_image": "no image",
            "held_out_loss/shuffled": "shuffled",
        }
        said = ", ".join(f"{word} {held_out[name]:.4f}" for name, word in names.items() if name in held_out)
        out.append(f"{said} at step {held_out['step']:,}")
    losses, lowest = held_out_losses(run), best(run)
    for step in checkpoint.steps_of(run):
        words = [f"held-out {losses[step]:.4f}"] if step in losses else []
        words += ["the best"] if step == lowest else []
        out.append(f"  {checkpoint.name(step)}  {', '.join(words)}".rstrip())
    for start in read_lines(run / RECORD):
        changed = ", ".join(f"{key} = {after}" for key, (_, after) in start.get("changed", {}).items())
        out.append(f"  started from step {start.get('step', '?'):,}" + (f": {changed}" if changed else ""))
    try:
        return "\n".join([*out, f"report: {write_report(run)}"])
    except OSError as error:
        raise folder.cannot_write(run, error) from error
