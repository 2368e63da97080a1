"""Checkpoints of a run: written whole or not at all, found again after any kill, the same for any number of processes.

    RUN/checkpoints/step-00010000/adapter.safetensors   the adapter as other programs load it (the EMA, if kept)
                                  state.safetensors     weights, optimiser state and EMA, whole, in fp32
                                  state.json            step, settings, loss scale, what it was made with; checksums

A checkpoint is written in a hidden folder that is renamed when all of it is on the disk. The random state is run.seed
and the step: every random number of a sample is made from these and its position.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from ipadapter_core import write_safetensors

from .same import changes
from .sums import DamagedError, check_files, check_signature, signed, sum_of

ADAPTER, STATE, SETTINGS = "adapter.safetensors", "state.safetensors", "state.json"
EMA = "average"  # the name of the EMA's tensors in STATE


@dataclass(frozen=True)
class Saved:
    """What a run needs to resume. weights, ema: by the adapter file's names. state: "key.weight name"."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Tensor]
    ema: dict[str, Tensor] = field(default_factory=dict)
    scale: dict[str, Any] = field(default_factory=dict)  # of fp16's loss


def folder(run: Path) -> Path:
    return run / "checkpoints"


def name(step: int) -> str:
    return f"step-{step:08d}"


def write(
    run: Path,
    saved: Saved,
    metadata: Mapping[str, str],
    fixed: Mapping[str, Any],
    made_with: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint. metadata: of the adapter file. fixed: the config's `fixed_values`. made_with: see `same`.

    Raises ValueError when the disk is full or the folder cannot be written; earlier checkpoints stay as they are.
    """
    place = folder(run)
    if saved.step in steps_of(run):
        return place / name(saved.step)
    final, part = place / name(saved.step), place / f".{name(saved.step)}.part"
    try:
        place.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _write_files(part, saved, metadata, {"fixed": dict(fixed), "made with": dict(made_with or {})})
        for file in (part / STATE, part / SETTINGS, part):
            _flush(file)
        part.rename(final)
        _flush(place)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        last = latest(run)
        keeps = f"the last good checkpoint is {last.name}" if last else "there is no earlier checkpoint"
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"the checkpoint of step {saved.step} could not be written in {place} ({reason}); {keeps}: "
            "make room or give another folder, then resume"
        ) from error
    return final


def _write_files(part: Path, saved: Saved, metadata: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """A checkpoint's three files. about: what its settings say beside step, scale and checksums."""
    groups = {"weights": saved.weights, "state": saved.state, EMA: saved.ema}
    tensors = {
        f"{group}.{key}": value.contiguous() for group, values in groups.items() for key, value in values.items()
    }
    save_file(tensors, part / STATE)
    write_safetensors(part / ADAPTER, saved.ema or saved.weights, metadata)
    settings = {"step": saved.step, "config": metadata.get("config"), "scale": saved.scale, **about}
    settings["files"] = {name: sum_of(part / name) for name in (STATE, ADAPTER)}
    settings = json.loads(json.dumps(settings))  # as it will be read
    (part / SETTINGS).write_text(json.dumps(signed(settings), indent=1))


def steps_of(run: Path) -> list[int]:
    """The steps of a run's complete checkpoints, ascending."""
    found = [re.fullmatch(r"step-(\d+)", path.name) for path in folder(run).glob("step-*")]
    return sorted(int(match[1]) for match in found if match and (folder(run) / match[0] / SETTINGS).exists())


def latest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    steps = steps_of(run)
    return folder(run) / name(steps[-1]) if steps else None


def read(path: Path, fixed: Mapping[str, Any] | None = None, is_checked: bool = False) -> Saved:
    """Read a checkpoint. is_checked: its checksums have been looked at, and need not be again.

    Raises DamagedError, a ValueError, when it is damaged, ValueError when it is of another training than `fixed`.
    """
    if not is_checked:
        check(path)
    settings = settings_of(path)
    try:
        tensors = load_file(path / STATE)
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error
    if fixed is not None:
        changes(path.name, settings, fixed)
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "state": {}, EMA: {}}
    for key, value in tensors.items():
        group, _, rest = key.partition(".")
        groups[group][rest] = value
    return Saved(settings["step"], groups["weights"], groups["state"], groups[EMA], settings["scale"])


def settings_of(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself. Raises DamagedError when that is damaged."""
    try:
        settings: dict[str, Any] = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        check_signature(settings)
        assert settings.keys() >= {"step", "fixed", "scale"}
    except (OSError, ValueError, AttributeError, TypeError, AssertionError) as error:
        raise _damaged(path, error) from error
    return settings


def check(path: Path) -> None:
    """Raises DamagedError when a checkpoint's files are not those that were written (of old ones: cannot be read)."""
    settings = settings_of(path)
    try:
        check_files(path, settings.get("files", {}))
        for file in (STATE, ADAPTER):
            with safetensors.safe_open(path / file, framework="pt"):
                pass
    except (OSError, DamagedError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error


def set_aside(run: Path, step: int) -> Path:
    """Give a checkpoint a name under which it is no checkpoint of the run any more, and is kept.

    Raises ValueError when the folder cannot be written.
    """
    path, number = folder(run) / name(step), 1
    while (aside := path.with_name(f"aside-{path.name}" + (f"-{number}" if number > 1 else ""))).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise ValueError(f"{path} cannot be moved aside ({error.strerror}): change its permissions") from error
    return aside


def _damaged(path: Path, error: Exception) -> DamagedError:
    return DamagedError(f"the checkpoint {path} is incomplete or damaged ({error}): resume from another one")


def prune(run: Path, keep_last: int, keep_every_steps: int, kept: int | None = None) -> None:
    """Remove all but the newest `keep_last` checkpoints and those at multiples of `keep_every_steps`; 0: all, none.

    kept: a step whose checkpoint stays too.
    """
    if not keep_last:
        return
    for step in steps_of(run)[:-keep_last]:
        if step != kept and not (keep_every_steps and step % keep_every_steps == 0):
            _remove(folder(run) / name(step))


def clean(run: Path) -> None:
    """Remove what a killed save or removal has left."""
    for path in folder(run).glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    # renamed first, so that a kill never leaves half a checkpoint under a good name
    hidden = path.with_name(f".{path.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden)


def _flush(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
