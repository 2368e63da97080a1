"""An adapter file out of a run or a checkpoint, for the nodes, diffusers and every other program."""

from __future__ import annotations

from pathlib import Path

from ipadapter_core import detect, read_adapter, write_adapter, write_pickle

from . import checkpoint


def export(source: Path, out: Path, half: bool = False, raw: bool = False) -> str:
    """Write the adapter of a run (its newest checkpoint) or a checkpoint: safetensors, or a .bin pickle by the name.

    half: fp16 weights, half the size. raw: the last weights where the checkpoint also keeps their average.
    Returns a line about what was written. Raises ValueError when there is nothing to export.
    """
    path = find_checkpoint(source)
    file = read_adapter(path / checkpoint.ADAPTER)
    tensors = checkpoint.read(path).weights if raw else file.tensors
    metadata = file.metadata | ({"ema": "0.0"} if raw else {})
    if half:
        tensors = {key: value.half() for key, value in tensors.items()}
    spec = detect(tensors)
    if out.suffix == ".bin":
        write_pickle(out, tensors)
    else:
        write_adapter(out, tensors, metadata)
    step = metadata.get("step", "?")
    return f"{out}: {spec.family} adapter for {spec.base}, {spec.num_tokens} tokens, {spec.encoder}, step {step}"


def find_checkpoint(source: Path) -> Path:
    """A checkpoint's folder, from itself or its run. Raises ValueError when there is none."""
    if (source / checkpoint.ADAPTER).is_file():
        return source
    newest = checkpoint.latest(source)
    if newest is None:
        raise ValueError(
            f"{source} is neither a run with a checkpoint nor a checkpoint: give the folder that `train` wrote to"
        )
    return newest
