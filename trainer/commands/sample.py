"""`python -m trainer sample`: pictures of an adapter file on any base, beside their references."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from PIL import Image

from ipadapter_core import AdapterSpec, WeightsFile, base_of, read_adapter
from ipadapter_core.method.picture import square

from ..base.device import DTYPES, choose_device
from ..base.files import BaseFiles
from ..base.frozen import Frozen
from ..base.whole import check_base
from ..data.identity import read_identity
from ..data.pictures import Unusable, decode
from ..data.record import Reference
from ..run import checkpoint
from ..run import folder as run
from ..sampling.sample import Sampling, given_of, sample
from ..settings.config import ModelConfig, OptimiserConfig
from ..settings.load import load_config
from ..settings.ranges import COUNT, FINITE, FROM_ONE, RANGES, check_number
from ..step.adapter import NO_ENCODER, is_appended, load_adapter
from ..step.objective import build_objective
from .export import find_checkpoint
from .sheet import writable_picture


def sample_to_file(options: argparse.Namespace) -> str:
    """Make the pictures that the command line asks for, one row for each reference; returns a line about them.

    Raises ValueError when adapter, base and encoder do not fit, or a reference is no picture.
    """
    _check_options(options)
    model, file, name = model_and_adapter(options)
    pictures = [_read(path) for path in options.image]
    check_base(BaseFiles(model))
    device = torch.device(choose_device(options.device))
    frozen = Frozen(model, device, DTYPES[options.precision])
    sites = frozen.base.sites
    adapter = load_adapter(file.tensors, sites, device, file.metadata)
    spec = adapter.spec
    if spec.feature:
        check_fit(spec.feature_dim, frozen.encoder_facts.feature_dim(spec.feature), "image features", name, "encoder")
    check_fit(spec.context_dim, sites.context_dim, "text states", name, "base")
    check_fit(len(spec.layers), len(sites.layers), "layers", name, "base")
    base = base_of(spec)
    resolution = options.resolution or int(file.metadata.get("resolution", base.resolution if base else 512))
    frozen.base.install("appended" if is_appended(file.tensors) else "decoupled", spec.has_lora)
    objective, rows = build_objective(frozen.base.scheduler_config(), OptimiserConfig()), []
    settings = Sampling(options.steps, options.guidance, options.weight, options.prompt, options.negative, options.seed)
    for reference in _references(options, pictures, spec, name):
        given = given_of([reference], spec, frozen)
        each = [dataclasses.replace(settings, seed=settings.seed + number) for number in range(options.number)]
        pictures = [sample(frozen, objective, adapter, given, one, resolution)[0] for one in each]
        rows.append([square(reference.picture, resolution), *pictures])
    sheet = Image.new("RGB", (resolution * len(rows[0]), resolution * len(rows)))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * resolution, y * resolution))
    sheet.save(options.out)
    return f"{options.out}: {len(rows)} references, {options.number} pictures of each at {resolution} px"


def model_and_adapter(options: argparse.Namespace) -> tuple[ModelConfig, WeightsFile, str]:
    """The frozen parts and the adapter that the command line names, and the adapter's name for people.

    Raises ValueError when there is no adapter, or its base is not known.
    """
    model, path = ModelConfig(), Path(options.adapter)
    if path.is_dir():
        found = find_checkpoint(path, getattr(options, "from_step", None))
        file = read_adapter(found / checkpoint.ADAPTER)
        of_run = found.parent.parent / run.CONFIG
        model = load_config(of_run).model if of_run.is_file() else model
    elif path.is_file():
        file = read_adapter(path)
        encoder = file.metadata.get("encoder", NO_ENCODER)
        model = model if encoder == NO_ENCODER else dataclasses.replace(model, encoder=encoder)
    else:
        raise ValueError(f"there is no adapter {path}: give an adapter file, a run or a checkpoint")
    changes = {key: value for key, value in (("base", options.base), ("encoder", options.encoder)) if value}
    model = dataclasses.replace(model, **changes)
    if not model.base:
        raise ValueError(
            f"the base of {path.name} is not known here: give --base, a diffusers folder or a checkpoint file"
        )
    return model, file, path.name


def check_fit(wanted: int, found: int, what: str, name: str, part: str) -> None:
    """Raises ValueError when the adapter's width or count is not the one of the base or encoder."""
    if wanted != found:
        raise ValueError(
            f"{name} expects {wanted} {what}, the {part} has {found}: give the {part} that it was trained with"
        )


def _references(
    options: argparse.Namespace, pictures: list[Image.Image], spec: AdapterSpec, name: str
) -> list[Reference]:
    """The pictures, each with its identity where the adapter reads one. Raises ValueError where they do not fit."""
    files = options.identity
    if spec.identity is None:
        return [Reference(picture) for picture in pictures]
    if len(files) != len(pictures):
        raise ValueError(
            f"{name} ({spec.family}) reads the identity of a face with each picture, got {len(files)} for "
            f"{len(pictures)}: give --identity a .npy or .safetensors file for each"
        )
    references = []
    for path, picture in zip(files, pictures, strict=True):
        identity = read_identity(path)
        if isinstance(identity, Unusable):
            raise ValueError(f"{path} is no identity: {identity.reason}")
        references.append(Reference(picture, identity))
    return references


def _read(path: Path) -> Image.Image:
    found = decode(path)
    if isinstance(found, Unusable):
        raise ValueError(f"{path} cannot be a reference ({found.reason}): give another picture")
    return found


def _check_options(options: argparse.Namespace) -> None:
    """Raises ValueError, before anything is loaded, for numbers out of range and an OUT that cannot be written."""
    for name, allowed in (
        ("steps", FROM_ONE), ("number", FROM_ONE), ("resolution", COUNT), ("seed", RANGES["run.seed"]),
        ("guidance", FINITE), ("weight", FINITE),
    ):  # fmt: skip
        check_number(f"--{name}", getattr(options, name), allowed)
    if options.resolution % 8:
        raise ValueError(f"--resolution = {options.resolution} should be a multiple of 8, the autoencoder's cell")
    writable_picture(options.out, "--out")
