"""An adapter file out of a run or a checkpoint, for the nodes, diffusers and every other program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ipadapter_core import AdapterSpec, base_name, detect, encoder_name, read_adapter, write_pickle, write_safetensors

from ..run import checkpoint
from ..run.resume import Asked, find
from ..step.adapter import is_appended


def export(source: Path, out: Path, half: bool = False, raw: bool = False, asked: Asked = None) -> str:
    """Write the adapter of a run (its newest checkpoint) or a checkpoint: safetensors, or a .bin pickle by the name.

    asked: another of the run's checkpoints. half: fp16 weights, half the size. raw: the last weights where the
    checkpoint also keeps their EMA.
    Returns a line about what was written. Raises ValueError when there is nothing to export or `out` cannot be written.
    """
    path = find_checkpoint(source, asked)
    file = read_adapter(path / checkpoint.ADAPTER)
    tensors = checkpoint.read(path).weights if raw else file.tensors
    metadata = file.metadata | ({"ema": "0.0"} if raw else {})
    if half:
        tensors = {key: value.half() for key, value in tensors.items()}
    about = _simple(metadata) if is_appended(tensors) else _about(detect(tensors))
    try:
        if out.suffix == ".bin":
            write_pickle(out, tensors)
        else:
            write_safetensors(out, tensors, metadata)
    except OSError as error:
        raise ValueError(f"{out} cannot be written ({error.strerror}): give another OUT") from error
    return f"{out}: {about}, step {metadata.get('step', '?')}"


def _about(spec: AdapterSpec) -> str:
    lora = ", with its LoRA" if spec.has_lora else ""
    return f"{spec.family} adapter for {base_name(spec)}, {spec.num_tokens} tokens, {encoder_name(spec)}{lora}"


def _simple(metadata: Mapping[str, str]) -> str:
    family, tokens = (metadata.get(name, "?") for name in ("family", "tokens"))
    return f"{family} adapter with appended attention, {tokens} tokens, for comparison (the nodes do not run it)"


def find_checkpoint(source: Path, asked: Asked = None) -> Path:
    """A checkpoint's folder, from itself or of its run the newest good one, or the one that is asked for.

    Raises ValueError when there is none, or it is damaged.
    """
    if (source / checkpoint.ADAPTER).is_file():
        if asked is not None:
            raise ValueError(
                f"{source} is a checkpoint, and --from chooses one of a run: leave it out, or give the run"
            )
        if (source / checkpoint.SETTINGS).is_file():
            checkpoint.check(source)
        return source
    found = find(source, asked)
    if found is None:
        raise ValueError(
            f"{source} is neither a run with a checkpoint nor a checkpoint: give the folder that `train` wrote to"
        )
    return found
