"""`python -m trainer`: train, resume, show, export, sample, evaluate, check, faces, cache, plan, profile."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .options import add_evaluate, add_from, add_sample
from .run.shared import OthersError, SharedError
from .settings.config import Config
from .settings.load import PRESETS, load_config

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
EXAMPLES = {
    "train": "python -m trainer train sd15.toml --set run.steps=20000 --processes 2",
    "resume": "python -m trainer resume out/sd15 --set run.steps=40000",
    "show": "python -m trainer show out/sd15",
    "export": "python -m trainer export out/sd15 my_adapter.safetensors --half",
    "sample": "python -m trainer sample my_adapter.safetensors --base models/sd15 --image cat.png --out cats.png",
    "evaluate": "python -m trainer evaluate my_adapter.safetensors --base models/sd15 --data coco --out out/table",
    "check": "python -m trainer check data/train.json --sheet seen.png",
    "faces": "python -m trainer faces data/train.json data/faces.jsonl --model models/insightface/models/buffalo_l",
    "cache": "python -m trainer cache sd15.toml --set data.cache=cache/sd15",
    "plan": "python -m trainer plan sd15",
    "profile": "python -m trainer profile sd15.toml --set run.batch_size=32",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command; a fault of the input is one sentence on stderr and exit code 1, of whichever process it is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may have bytes that are no text
    options = parser().parse_args(arguments)
    is_first = os.environ.get("RANK", "0") == "0"
    if not (is_first and sys.stderr.isatty()):  # bars of downloads and of loading belong on a terminal, once
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.INFO if is_first else logging.ERROR, format="%(message)s")
    try:
        return options.run(options, arguments)
    except OthersError:
        return 1
    except SharedError as error:
        return _failed(str(error)) if is_first else 1
    except ValueError as error:
        return _failed(str(error))
    except OSError as error:
        if error.errno not in FULL:
            raise
        return _failed(f"{error.filename or 'a file'} cannot be written ({error.strerror}): make room and try again")
    except RuntimeError as error:
        return _lost(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _failed(message: str) -> int:
    rank = os.environ.get("RANK", "0")
    is_alone = os.environ.get("WORLD_SIZE", "1") == "1"
    print(f"error: {message}" if is_alone else f"error: process {rank}: {message}", file=sys.stderr, flush=True)
    if not is_alone:
        from .run import launch

        launch.note(launch.FAULT, message)
    return 1


def _lost(error: RuntimeError) -> int:
    """An error of torch's: a traceback, but where another process is gone and has said why itself."""
    from .run import launch

    if not launch.is_lost_peer(error):
        launch.note(launch.FAULT, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        raise error
    print(f"process {launch.rank()}: another process is gone, this one ends too", file=sys.stderr, flush=True)
    return 1


def train(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    config = _config(options)
    if options.dry_run:
        return _print_plan(config)
    from .run import folder as run
    from .run.command import run_training

    return run_training(config, arguments, run.prepare(config), is_new=True)


def resume(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from .run import folder as run
    from .run.command import run_training
    from .run.resume import GoingOn

    _check_processes(options.processes)
    config = run.resume(options.folder, options.set, options.processes)
    remember = run.read(options.folder, options.set) if options.set else None
    return run_training(config, arguments, options.folder, GoingOn(options.from_step, options.changed_data, remember))


def show(options: argparse.Namespace, _: Sequence[str]) -> int:
    from .commands.show import show_run

    print(show_run(options.folder))
    return 0


def export(options: argparse.Namespace, _: Sequence[str]) -> int:
    from .commands.export import export as write

    print(write(options.source, options.out, options.half, options.raw, options.from_step))
    return 0


def sample(options: argparse.Namespace, _: Sequence[str]) -> int:
    from .commands.sample import sample_to_file

    print(sample_to_file(options))
    return 0


def evaluate(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from .commands.evaluate import run_evaluate

    return run_evaluate(options, arguments)


def check(options: argparse.Namespace, _: Sequence[str]) -> int:
    from .commands.check import run_check

    return run_check(options)


def faces(options: argparse.Namespace, _: Sequence[str]) -> int:
    from .commands.faces import run_faces

    return run_faces(options)


def cache(options: argparse.Namespace, _: Sequence[str]) -> int:
    from .commands.cache import build_cache
    from .commands.verify import verify_cache

    if options.verify:
        verify_cache(_config(options))
    else:
        build_cache(_config(options), options.only)
    return 0


def plan(options: argparse.Namespace, _: Sequence[str]) -> int:
    return _print_plan(_config(options))


def profile(options: argparse.Namespace, _: Sequence[str]) -> int:
    from .commands.profile import run_profile

    if options.steps < 1:
        raise ValueError(f"--steps {options.steps} should be 1 or more")
    print(run_profile(_config(options), options.steps, options.out))
    return 0


def _print_plan(config: Config) -> int:
    from .commands.plan import describe, make_plan
    from .data.sources import is_there, open_source

    source = open_source(config.data) if is_there(config.data) else None
    print(describe(config, make_plan(config), source))
    return 0


def _config(options: argparse.Namespace) -> Config:
    config = load_config(options.config, options.set)
    _check_processes(getattr(options, "processes", None))
    processes = getattr(options, "processes", None) or int(os.environ.get("WORLD_SIZE", "0")) or None
    if processes is None or processes == config.run.processes:
        return config
    is_plain = config.run.parallel == "none" and processes > 1
    run = dataclasses.replace(config.run, processes=processes, parallel="ddp" if is_plain else config.run.parallel)
    return dataclasses.replace(config, run=run)


def _check_processes(number: int | None) -> None:
    if number is not None and number < 1:
        raise ValueError(f"--processes {number} should be 1 or more")


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m trainer", description="Trains IP-Adapters (arXiv 2308.06721).")
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(
            name, help=text, description=text, epilog=f"example: {EXAMPLES[name]}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        found.set_defaults(run=run)
        return found

    found = command("train", train, "Start a training.")
    _add_config(found)
    found.add_argument("--processes", type=int, help="processes on this machine, instead of run.processes")
    found.add_argument("--dry-run", action="store_true", help="print the plan and stop")

    found = command("resume", resume, "Go on with a run from its newest good checkpoint, exactly.")
    found.add_argument("folder", metavar="RUN", type=Path, help="the folder that train wrote to")
    _add_set(found)
    found.add_argument("--processes", type=int, help="another number of processes; the samples of a step stay the same")
    add_from(found, "an older checkpoint; later ones are kept aside")
    found.add_argument("--changed-data", action="store_true", help="go on although the data is another than before")

    found = command("show", show, "What a run has come to: checkpoints, held-out losses, starts; and its report.html.")
    found.add_argument("folder", metavar="RUN", type=Path, help="the folder that train wrote to")

    found = command("export", export, "Write the adapter of a run or a checkpoint as one file.")
    found.add_argument("source", metavar="RUN|CHECKPOINT", type=Path)
    found.add_argument("out", metavar="OUT", type=Path, help=".safetensors, or .bin for programs that want a pickle")
    add_from(found, "another checkpoint of the run than the newest good one")
    found.add_argument("--half", action="store_true", help="fp16 weights")
    found.add_argument("--raw", action="store_true", help="the last weights, not their moving average (EMA)")

    add_sample(command("sample", sample, "Make pictures with an adapter; the defaults are the paper's inference."))
    add_evaluate(command("evaluate", evaluate, "The paper's Table 1, of any adapters; resumes where it was stopped."))
    _add_check(command("check", check, "Look at a dataset: sizes, captions, duplicates, what would be skipped."))
    _add_faces(
        command("faces", faces, "Find the face in each picture: its identity and crop, for FaceID and the like.")
    )
    found = command("cache", cache, "Compute once what never changes: latents, image features, text states.")
    _add_config(found)
    found.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help="samples, latents, text, features, identities"
    )
    found.add_argument("--verify", action="store_true", help="compare the files with their checksums, and make nothing")
    _add_config(command("plan", plan, "Print what a training would do: weights, steps, memory, files."))
    found = command("profile", profile, "Run some steps, and say where their time goes; nothing is trained.")
    _add_config(found)
    found.add_argument("--steps", type=int, default=20)
    found.add_argument("--out", type=Path, default=Path("profile"), help="folder of the trace")
    return root


def _add_config(found: argparse.ArgumentParser) -> None:
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    found.add_argument("config", metavar="CONFIG", help=f"a TOML file, or a preset: {presets}")
    _add_set(found)


def _add_set(found: argparse.ArgumentParser) -> None:
    found.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a value of the config"
    )


def _add_check(found: argparse.ArgumentParser) -> None:
    found.add_argument(
        "data", metavar="DATA", type=Path, help="a list, a folder, shards, a Hugging Face dataset, or a config"
    )
    _add_set(found)
    found.add_argument("--sheet", type=Path, help="write a sheet of pictures as model and encoder will see them")


def _add_faces(found: argparse.ArgumentParser) -> None:
    found.add_argument("data", metavar="DATA", type=Path, help="a list or a folder of pictures")
    found.add_argument("out", metavar="OUT", type=Path, help="the new list, .jsonl, with the columns face and identity")
    found.add_argument("--model", default="~/.insightface/models/buffalo_l", help="folder of insightface's .onnx files")
    found.add_argument("--pictures", default="", help="folder that names in a list are relative to, as data.pictures")
    found.add_argument(
        "--crop", default="aligned", choices=["aligned", "box"], help="aligned for FaceID plus, else box"
    )
    found.add_argument("--size", type=int, default=224, help="pixels of the crop; FaceID plus for SDXL: 256")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
