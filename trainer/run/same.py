"""Whether a run goes on as what it is: the same settings, and base, encoder and data of the same content anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.fingerprint import weights_digest
from ..data.record import Source
from ..settings.config import Config, fixed_values

# May be another one from a resume on, and the run's record says from which step.
CHANGEABLE = ("optimiser.learning_rate", "optimiser.schedule", "optimiser.warmup_steps", "optimiser.clip")
# Names of files: what counts is what is in them.
FOLDERS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
PLACES = ("model.base", "model.base_config", "model.vae", "model.encoder")
DATA, SAMPLES = "data.source", "samples"
ONLY_AT_THE_START = ("adapter.start_from",)


def made_with(config: Config, source: Source) -> dict[str, Any]:
    """What a training computes with, by content: hashes of the base's, the encoder's and the data's."""
    parts = {place: _content(Path(getattr(config.model, place.partition(".")[2]))) for place in PLACES}
    return parts | {DATA: source.digest()[:16], SAMPLES: len(source)}


def changes(
    checkpoint: str,
    settings: Mapping[str, Any],
    wanted: Mapping[str, Any],
    now: Mapping[str, Any] | None = None,
    takes_changed_data: bool = False,
) -> dict[str, list[Any]]:
    """What is another value from here on, "section.key" to before and after.

    settings: a checkpoint's. wanted: the config's fixed values. now: `made_with` of this training; without it names
    are compared, not contents.
    Raises ValueError when it is another training, or the data has changed and that is not taken.
    """
    before = fixed_values(Config()) | settings["fixed"]  # values that a version before did not have are the default
    made = settings.get("made with") or {}
    by_content = (*PLACES, DATA) if made and now else ()
    found = {key: [before.get(key), value] for key, value in wanted.items() if before.get(key) != value}
    for key in by_content:
        found.pop(key, None)
    for key in ONLY_AT_THE_START:
        found.pop(key, None)
    others = [key for key in found if key not in CHANGEABLE]
    others += [key for key in PLACES if key in by_content and made.get(key) != now[key]] if now else []
    if others:
        raise _another(checkpoint, others, found, wanted)
    if now and by_content and made[DATA] != now[DATA]:
        if not takes_changed_data:
            raise ValueError(_changed_data(checkpoint, made, now, wanted))
        found[DATA] = [f"{made[SAMPLES]} samples, {made[DATA]}", f"{now[SAMPLES]} samples, {now[DATA]}"]
    return found


def _another(checkpoint: str, keys: list[str], found: Mapping[str, list[Any]], wanted: Mapping[str, Any]) -> ValueError:
    key = keys[0]
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    if key in found:
        words = f"its {key} is {found[key][0]!r}, the config's {found[key][1]!r}{more}"
    else:
        words = f"its {key} had other files than {wanted[key]!r} has{more}"
    return ValueError(
        f"the checkpoint {checkpoint} belongs to another training: {words}: restore the config, or start a new run "
        "(adapter.start_from takes its adapter file)"
    )


def _changed_data(checkpoint: str, made: Mapping[str, Any], now: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    if made[SAMPLES] == now[SAMPLES]:
        what = f"it has {now[SAMPLES]:,} samples as before, but other names, sizes or captions"
    else:
        what = f"it had {made[SAMPLES]:,} samples and has {now[SAMPLES]:,}"
    return (
        f"the data {wanted[DATA]} has changed since {checkpoint}: {what}. Restore it; or go on with it by "
        "--changed-data: other samples will be held out, and the order is another one"
    )


def _content(path: Path) -> str:
    """A hash of a base's or encoder's files, whatever they are called and wherever they are; else the name itself."""
    if not path.name or not path.exists():
        return path.as_posix() if path.name else ""
    folders = [path / name for name in FOLDERS if (path / name).is_dir()] if path.is_dir() else []
    found = weights_digest(folders or [path])
    return found.rpartition("(")[2].rstrip(")")
