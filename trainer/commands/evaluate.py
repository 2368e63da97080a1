"""`python -m trainer evaluate`: the paper's Table 1, of adapters, of bases alone and of pictures made elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ipadapter_core import base_of

from ..base.device import DTYPES, choose_device
from ..base.frozen import Frozen
from ..base.processor import Kind
from ..evaluation.coco import read_coco
from ..evaluation.compare import compare
from ..evaluation.estimate import estimate
from ..evaluation.judges import Judges
from ..evaluation.launch import launch
from ..evaluation.page import to_html
from ..evaluation.protocol import Protocol
from ..evaluation.store import Store, digest
from ..evaluation.systems import NO_ADAPTER, Drawn, System, all_series, fingerprint, read_folder
from ..evaluation.table import Result, make_result, to_json, to_markdown
from ..evaluation.work import NUMBER, PARENT, Job, left, work
from ..settings.config import OptimiserConfig
from ..step.adapter import is_appended, load_adapter
from ..step.objective import build_objective
from .faces import load_models
from .sample import check_fit, model_and_adapter

OFF = {
    "dino": ("DINO-I", "no --dino"),
    "style": ("style", "no --style"),
    "identity": ("identity", "no --faces"),
}


def run_evaluate(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """The command. Raises ValueError, in a sentence, for every fault of the input; what is made is kept."""
    if options.compare:
        print(compare(*options.compare))
        return 0
    if not options.data or not options.out:
        raise ValueError("evaluate needs --data, the folder of COCO, and --out, the folder of the result")
    protocol, part = read_protocol(options), read_part(options.part)
    if options.processes > 1 and not options.dry_run:
        launch(arguments, options.processes, part, options.device, options.out / ".logs")
    job, off = prepare(options, protocol, part)
    is_shown = os.environ.get(NUMBER, "0") == "0"
    found = estimate(job, measure=is_shown)
    shared = f" by each of {part[1]}" if part[1] > 1 else ""
    print(f"{len(job.references):,} references, {len(job.series)} series: {found.told(part[1])}{shared}")
    if options.dry_run:
        return 0
    with job.store.alone("{}-of-{}".format(*part)):
        print(work(job, is_shown))
    if PARENT in os.environ:  # it writes the table when all its processes are done
        return 0
    if any(left(job)):
        said = "" if part[1] > 1 else " (another process has taken something away)"
        print(f"part {part[0]}/{part[1]} is done{said}; the table is written when all parts are")
        return 0
    write(job, make_result(job, off), options.out)
    return 0


def prepare(options: argparse.Namespace, protocol: Protocol, part: tuple[int, int]) -> tuple[Job, dict[str, str]]:
    """Everything read and checked, and what is not measured, with the reason. Raises ValueError."""
    references = read_coco(options.data, options.split, protocol.caption, protocol.limit, options.skip_missing)
    device = torch.device(choose_device(options.device))
    named = {"clip": options.clip, "dino": options.dino, "style": options.style, "identity": options.faces}
    judges = Judges(named, device, load_models)
    judges.load()
    systems: list[System] = [*read_drawn(options, protocol.resolution, device)]
    systems += [read_folder(*_named(word), references) for word in options.pictures]
    if not systems:
        raise ValueError("there is nothing to evaluate: give an ADAPTER, --no-adapter, or --pictures NAME=DIR")
    if drawn := [system for system in systems if isinstance(system, Drawn)]:
        kinds = sorted({"Euler" if system.objective.prediction == "flow" else "DDIM" for system in drawn})
        protocol = dataclasses.replace(protocol, sampler=" and ".join(kinds))
    series = all_series(systems, protocol, len(references))
    # of folders the digest too: pictures made elsewhere may change under their names
    seen = {kind: fingerprint(name) for kind, name in judges.named.items()}
    given = [system.about for system in systems if not isinstance(system, Drawn)]
    store = Store(options.out, digest([seen, references.digest, given, protocol.batch]), "part{}of{}".format(*part))
    store.begin(series, [one.shaping(protocol) for one in series], options.dry_run)
    off = {title: why for kind, (title, why) in OFF.items() if kind not in judges.named}
    if not judges.has_texts:
        off["CLIP-T"] = f"{Path(options.clip).name} has no text encoder with a tokenizer"
    if "style" in judges.named and NO_ADAPTER not in (system.name for system in systems):
        off["style gained less content leaked"] = "no --no-adapter to measure it against"
    if all(one.samples == 1 for one in series):
        off["diversity"] = "one sample of each reference"
    if not protocol.text_prompts:
        off["obedience to a text at several weights"] = "no --text-prompts"
    return Job(protocol, references, tuple(series), judges, store, part), off


def read_drawn(options: argparse.Namespace, resolution: int, device: torch.device) -> list[Drawn]:
    """The adapters on their bases, and the base alone where it is wanted. Raises ValueError where one does not fit."""
    frozen: dict[tuple[str, str], Frozen] = {}
    found = [_read_adapter(word, options, resolution, device, frozen) for word in options.adapter]
    if options.no_adapter and not found:
        raise ValueError("--no-adapter measures the base of the first adapter: give an ADAPTER")
    if options.no_adapter:
        about = {name: found[0].about[name] for name in ("base", "vae", "prediction")}
        found.append(
            dataclasses.replace(found[0], name=NO_ADAPTER, adapter=None, kind="decoupled", about=about, count=0)
        )
    return found


def _read_adapter(
    word: str,
    options: argparse.Namespace,
    resolution: int,
    device: torch.device,
    frozen: dict[tuple[str, str], Frozen],
) -> Drawn:
    name, path = _named(word) if _is_named(word) else ("", Path(word))
    wanted = argparse.Namespace(adapter=path, base=options.base, encoder=options.encoder)
    model, file, own = model_and_adapter(wanted)
    key = (model.base, model.encoder)
    if key not in frozen:
        made = Frozen(model, device, DTYPES[options.precision])
        for (base, _), other in frozen.items():
            if base == model.base:
                made.base = other.base  # one base in memory, whatever the encoders
        frozen[key] = made
    mine = frozen[key]
    sites = mine.base.sites
    adapter = load_adapter(file.tensors, sites, device, file.metadata)
    spec = adapter.spec
    if spec.identity is not None or spec.feature is None:
        raise ValueError(
            f"{own} ({spec.family}) reads the identity of a face, which COCO's pictures have not: leave it out"
        )
    check_fit(spec.feature_dim, mine.encoder_facts.feature_dim(spec.feature), "image features", own, "encoder")
    check_fit(spec.context_dim, sites.context_dim, "text states", own, "base")
    check_fit(len(spec.layers), len(sites.layers), "layers", own, "base")
    published = base_of(spec)
    trained = int(file.metadata.get("resolution", published.resolution if published else 512))
    objective = build_objective(mine.base.scheduler_config(), OptimiserConfig())
    about = {
        "adapter": digest([[key, fingerprint_of(value)] for key, value in sorted(file.tensors.items())]),
        "base": fingerprint(model.base),
        "vae": fingerprint(model.vae) if model.vae else "",
        "encoder": fingerprint(model.encoder),
        "prediction": objective.prediction,
    }
    count = sum(value.numel() for value in file.tensors.values())
    kind: Kind = "appended" if is_appended(file.tensors) else "decoupled"
    title = name or (path.stem if path.is_file() else path.name)
    return Drawn(title, mine, objective, adapter, kind, resolution or trained, about, count)


def fingerprint_of(value: torch.Tensor) -> str:
    """Of a tensor's bytes."""
    flat = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def write(job: Job, result: Result, out: Path) -> None:
    """The result as JSON, Markdown and a page, and the table on the screen."""
    job.store.write_text(out / "result.json", to_json(result))
    table = to_markdown(result)
    job.store.write_text(out / "table.md", table)
    job.store.write_text(out / "index.html", to_html(job, result))
    print(table)
    print(f"{out / 'result.json'}, table.md, index.html")


def read_protocol(options: argparse.Namespace) -> Protocol:
    """The protocol that the command line asks for; what it does not name is the paper's."""
    given = {field.name: getattr(options, field.name, None) for field in dataclasses.fields(Protocol)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
    return Protocol(**values)


def read_part(word: str) -> tuple[int, int]:
    """ "0/8" to its number and how many there are. Raises ValueError when it is no such part."""
    number, _, count = word.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ValueError(f"--part is {word!r}: give i/n, from 0/n to n-1/n")
    return int(number), int(count)


def _is_named(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _named(word: str) -> tuple[str, Path]:
    name, _, path = word.partition("=")
    if not name or not path:
        raise ValueError(f"--pictures {word!r} has no name: give NAME=DIR")
    return name, Path(path)
