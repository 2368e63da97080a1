"""More than two hundred hostile files: none crashes, runs code or takes memory, and each is refused in one sentence."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.hostile import Case, attacks, cases, good

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SLACK = 32 << 20  # bytes beyond twice the file's size: what Python and torch take for the smallest file now and then
RESERVED = 256 << 20  # address space alone is taken by the allocator in pieces


def told(folder: Path, paths: list[Path]) -> list[dict]:
    """What the reader tells of each file; where it dies of one, that is told, and another goes on behind it."""
    (folder / "good").write_bytes(good.safetensors())
    results: list[dict] = []
    while len(results) < len(paths):
        rest = paths[len(results) :]
        reader = subprocess.run(
            [sys.executable, "-m", "tests.support.hostile.reader", str(folder / "good")],
            input="\n".join(map(str, rest)) + "\n",
            capture_output=True, text=True, env=ENVIRONMENT, cwd=folder, timeout=170, check=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in reader.stdout.splitlines()]
        results += lines
        if len(lines) < len(rest):
            died = rest[len(lines)].name
            results.append({"name": died, "outcome": f"died ({reader.returncode})", "sentence": reader.stderr[-500:],
                            "acts": [], "peak": 0, "reserved": 0, "seconds": 0.0})  # fmt: skip
    return results


def faults(case: Case, result: dict, size: int) -> list[str]:
    sentence = result["sentence"]
    found = []
    if result["outcome"] != "ValueError":
        found.append(f"{result['outcome']}: {sentence[:300]}")
    elif "\n" in sentence or len(sentence) > 500 or ": " not in sentence:
        found.append(f"no sentence: {sentence[:600]!r}")
    if result["acts"]:
        found.append(f"ran {result['acts']}")
    if result["peak"] > 2 * size + SLACK:
        found.append(f"took {result['peak'] / 2**20:.0f} MiB for a file of {size / 2**20:.1f}")
    if result["reserved"] > 2 * size + RESERVED:
        found.append(f"reserved {result['reserved'] / 2**20:.0f} MiB for a file of {size / 2**20:.1f}")
    if result["seconds"] > 10:
        found.append(f"took {result['seconds']:.0f} s")
    return [f"{case.name}: {fault}" for fault in found]


@pytest.mark.slow
@pytest.mark.clock
def test_hostile_files(tmp_path):
    """Through the reader and the builder that the nodes call, in a process whose memory and acts are watched."""
    place, marks = tmp_path / "files", tmp_path / "marks"
    place.mkdir()
    marks.mkdir()
    every = list(cases())
    paths = [place / f"{number}.safetensors" for number in range(len(every))]
    for number, (case, path) in enumerate(zip(every, paths)):
        case.write(path, marks / str(number))
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    results = told(tmp_path, paths)
    found = [fault for case, result, size in zip(every, results, sizes) for fault in faults(case, result, size)]

    kinds = Counter(case.kind for case in every)
    print(*(f"\n{count:4} {kind}" for kind, count in kinds.items()), sep="")
    refused = sum(result["outcome"] == "ValueError" for result in results)
    print(
        f"{len(every)} hostile files: {refused} refused in a sentence, "
        f"{sum(result['outcome'].startswith('died') for result in results)} crashes, "
        f"{sum(len(result['acts']) for result in results) + len(list(marks.iterdir()))} executions of code"
    )
    worst = max(zip(results, sizes, every), key=lambda row: row[0]["peak"] - 2 * row[1])
    slowest = max(zip(results, every), key=lambda row: row[0]["seconds"])
    print(
        f"the most memory beyond twice the file's size: {(worst[0]['peak'] - 2 * worst[1]) / 2**20:.1f} MiB "
        f"({worst[2].name}, {worst[1] / 2**20:.1f} MiB); the longest: {slowest[0]['seconds']:.1f} s ({slowest[1].name})"
    )
    print(*found, sep="\n")
    assert len(every) >= 200 and len({case.name for case in every}) == len(every)
    assert list(marks.iterdir()) == []
    assert found == []


@pytest.mark.slow
def test_the_attacks_are_real(tmp_path):
    """Without care they do what they are meant to."""
    real = [name for name in attacks.attack(Path()) if name not in attacks.HARMLESS]
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile.careless", str(tmp_path)],
        capture_output=True, text=True, env=ENVIRONMENT, check=True,
    )  # fmt: skip
    print(f"{len(real)} kinds of code run where nobody takes care", run.stderr, sep="\n")
    assert set(json.loads(run.stdout)) >= set(real)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["safetensors", "zipped", "in_a_row"])
def test_the_good_file_is_read(tmp_path, layout):
    """What the hostile ones are made of."""
    path = tmp_path / "a"
    path.write_bytes(getattr(good, layout)())
    (result,) = told(tmp_path, [path])
    assert result["outcome"] == "read"
