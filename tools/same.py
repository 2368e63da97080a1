"""Show that a refactor changed nothing: this checkout beside another one, both run on this machine.

    python -m tools.same OTHER_CHECKOUT [--parity]
    make same BASE=<revision>

Compared are the contracts of nodes, checkpoints and order, tiny seeded trainings to their last state, pocket's pictures
out of a real ComfyUI, and with --parity every difference that the parity tests print (long, up to 19 GB). Nothing is
stored: each checkout runs in processes of its own, with itself as working folder and first on Python's path. The exit
code is 1 when anything differs.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support import runs, tiny_models
from tools import api_graphs
from tools.comfyui import ROOT, find_or_fetch
from tools.server import Server

CONTRACTS = ("node_contract.json", "checkpoint_keys.json")
SNAPSHOT = "test_order_and_draws_stay_what_they_are"
STEPS = 6
# label: family, kind of base, whether it trains from a cache
TRAININGS = {
    "base": ("base", "sd", False),
    "base, cached": ("base", "sd", True),
    "plus, SDXL": ("plus", "sdxl", False),
    "plus, SDXL, cached": ("plus", "sdxl", True),
}
FIGURE = re.compile(r"\d(\.\d+)?e[-+]\d\d")


class Row(NamedTuple):
    """One comparison. found: what was compared, or what differs."""

    what: str
    is_same: bool
    found: str


def contracts(ours: Path, theirs: Path) -> Iterator[Row]:
    """The committed contracts, byte for byte, and the numbers that the order's snapshot asserts."""
    for name in CONTRACTS:
        a, b = (_only((tree / "tests").rglob(name), name).read_bytes() for tree in (ours, theirs))
        yield Row(name, a == b, f"{len(a)} and {len(b)} bytes")
    a, b = (_numbers(tree, SNAPSHOT) for tree in (ours, theirs))
    yield Row("order and draws", a == b, f"{len(a)} and {len(b)} numbers in the snapshot")


def _only(found: Iterable[Path], what: str) -> Path:
    paths = list(found)
    if len(paths) != 1:
        raise ValueError(f"expected one {what}, found {len(paths)}: {', '.join(map(str, paths)) or 'none'}")
    return paths[0]


def _numbers(tree: Path, test: str) -> list[float]:
    """Every number in a test's body, in order: fields may be renamed, what they hold may not change."""
    holding = (path for path in (tree / "tests").rglob("test_*.py") if f"def {test}(" in path.read_text("utf-8"))
    module = ast.parse(_only(holding, test).read_text("utf-8"))
    (body,) = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == test)
    found = [node for node in ast.walk(body) if isinstance(node, ast.Constant) and type(node.value) in (int, float)]
    return [node.value for node in sorted(found, key=lambda node: (node.lineno, node.col_offset))]  # type: ignore[misc]


def trainings(ours: Path, theirs: Path, folder: Path) -> Iterator[Row]:
    """Tiny trainings from one seed: the last state's tensors, the adapter's, and what the log says."""
    for kind in ("sd", "sdxl"):
        tiny_models.write_base(folder / kind, kind)
    tiny_models.write_encoder(folder / "encoder")
    runs.write_data(folder / "data")
    for label, (family, kind, is_cached) in TRAININGS.items():
        a, b = (
            _train(tree, folder, f"{side}-{label.replace(', ', '-')}", family, kind, is_cached)
            for side, tree in (("ours", ours), ("theirs", theirs))
        )
        for name in ("state.safetensors", "adapter.safetensors"):
            yield Row(f"training, {label}: {name.split('.')[0]}", *_compare_tensors(_newest(a, name), _newest(b, name)))
        yield Row(f"training, {label}: log", *_compare_logs(a, b))


def _train(tree: Path, folder: Path, name: str, family: str, kind: str, is_cached: bool) -> Path:
    tables: dict[str, dict[str, Any]] = {
        "model": {"base": str(folder / kind), "encoder": str(folder / "encoder")},
        "adapter": {"family": family},
        "data": {
            "source": str(folder / "data" / "data.json"), "resolution": 64, "workers": 1, "min_side": 16, "held_out": 2,
            "crop": "centre" if is_cached else "random", "drop_text": 0.2, "drop_image": 0.2,
        },
        "optimiser": {
            "learning_rate": 1e-2, "schedule": "cosine", "warmup_steps": 2, "clip": 1.0, "ema": 0.9, "accumulation": 2,
            "noise_offset": 0.05, "timesteps": "snr", "loss_weighting": "snr",
        },
        "run": {
            "folder": str(folder / name), "steps": STEPS, "batch_size": 3, "device": "cpu", "save_every_steps": STEPS,
            "log_every_steps": 1, "validate_every_steps": 2, "sample_every_steps": 0, "trackers": [],
        },
    }  # fmt: skip
    if is_cached:
        tables["data"]["cache"] = str(folder / f"{name}-cache")
    config = folder / f"{name}.toml"
    config.write_text(
        "\n".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
            for section, values in tables.items()
        )
    )
    for command in ("cache", "train") if is_cached else ("train",):
        _python(tree, "-m", "trainer", command, str(config))
    return folder / name


def _newest(run: Path, name: str) -> Path:
    return max((run / "checkpoints").glob(f"step-*/{name}"))


def _compare_tensors(a: Path, b: Path) -> tuple[bool, str]:
    ours, theirs = load_file(a), load_file(b)
    if ours.keys() != theirs.keys():
        return False, f"keys differ: {', '.join(sorted(ours.keys() ^ theirs.keys())[:3])}"
    wrong = [key for key in ours if ours[key].dtype != theirs[key].dtype or not torch.equal(ours[key], theirs[key])]
    count = f"{len(ours)} tensors, {sum(value.numel() for value in ours.values()):,} numbers"
    return not wrong, f"{len(wrong)} of {count} differ, the first {wrong[0]}" if wrong else count


def _compare_logs(a: Path, b: Path) -> tuple[bool, str]:
    """The losses of every line; other columns are speeds and memory."""
    ours, theirs = (
        [{key: value for key, value in json.loads(line).items() if "loss" in key or key == "step"} for line in lines]
        for lines in ((run / "log.jsonl").read_text("utf-8").splitlines() for run in (a, b))
    )
    wrong = [line["step"] for line, other in zip(ours, theirs) if line != other]
    found = f"{sum(len(line) - 1 for line in ours)} losses"
    return ours == theirs and len(ours) > 0, f"steps {wrong} differ" if wrong else found


def pictures(ours: Path, theirs: Path, folder: Path) -> Iterator[Row]:
    """Pocket's graphs in a real ComfyUI, once with each checkout as the pack: the saved pictures' pixels."""
    names = [name for name in api_graphs.NAMES if name.startswith("pocket_")]
    made = [_pictures(tree, names, folder / side) for side, tree in (("ours", ours), ("theirs", theirs))]
    for name in names:
        a, b = (side[name] for side in made)
        is_same = len(a) == len(b) > 0 and all(np.array_equal(one, other) for one, other in zip(a, b))
        yield Row(f"pictures, {name}", is_same, f"{len(a)} and {len(b)} pictures of {a[0].shape[1]} px")


def _pictures(tree: Path, names: Iterable[str], folder: Path) -> dict[str, list[Any]]:
    (folder / "models").mkdir(parents=True)  # empty: pocket comes with the pack
    with Server(find_or_fetch(), folder, folder / "models", pack=tree) as server:
        made = {name: server.run(api_graphs.prompt(name)).pictures for name in names}
    # In the order of their pixels: previews have random names.
    return {name: sorted((np.asarray(Image.open(path)) for path in made[name]), key=bytes) for name in names}


def parity(ours: Path, theirs: Path) -> Iterator[Row]:
    """Every difference that a test prints. A figure that only this checkout has is new; one that is gone differs."""
    a, b = (dict(_figures(tree)) for tree in (ours, theirs))
    for name, lines in b.items():
        gone = [line for line in lines if line not in a.get(name, [])]
        yield Row(f"figures, {name}", not gone and bool(lines), f"gone: {gone[0]}" if gone else f"{len(lines)} lines")


def _figures(tree: Path) -> Iterator[tuple[str, list[str]]]:
    """The lines with a figure that each parity file prints, by the file's name."""
    for path in sorted((tree / "tests").rglob("test_*.py")):
        if "figures" not in path.read_text("utf-8") or {"pocket", "server"} & set(path.parts):
            continue
        output = _python(tree, "-m", "pytest", "-q", "-s", "-m", "not gpu and not memory", str(path.relative_to(tree)))
        yield path.name, [line.lstrip(".") for line in output.splitlines() if FIGURE.search(line)]


def _python(tree: Path, *arguments: str) -> str:
    """Run Python in a checkout, and its output. Raises ValueError with the end of it when it fails."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(arguments)} in {tree} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the folder of another checkout of this repository")
    parser.add_argument("--parity", action="store_true", help="compare the parity tests' figures too")
    options = parser.parse_args()
    theirs, is_same = options.other.resolve(), True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts = [contracts(ROOT, theirs), trainings(ROOT, theirs, folder), pictures(ROOT, theirs, folder / "pictures")]
        for part in parts + ([parity(ROOT, theirs)] if options.parity else []):
            for row in part:
                is_same &= row.is_same
                print(f"{'same' if row.is_same else 'DIFFERS':8}{row.what:48}{row.found}", flush=True)
    print("nothing differs" if is_same else "the checkouts differ")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
