"""In a process of its own: reads the files named on stdin as the nodes do, and tells of each in one line of JSON.

What is told: what happened, the sentence, the memory that it took at its peak (resident, and reserved), and what code
ran. `python -m hostile.reader GOOD_FILE`.
"""

from __future__ import annotations

import copyreg
import json
import sys
import time
from pathlib import Path
from typing import Any

from ipadapter_core import build_adapter, describe, detect, extra_keys, lora_of, read_adapter, resolve_variant
from tests.support.hostile.attacks import EXTENSION

ACTS = (
    "os.system",
    "os.mkdir",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "shutil.",
    "socket.connect",
)
acts: list[str] = []


def memory(name: str) -> int:
    """Bytes, from the kernel: VmRSS, VmHWM (the most since it was reset) or VmPeak (the most ever reserved)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def load(path: str | Path) -> None:
    file = read_adapter(path)
    spec = resolve_variant(detect(file.tensors), file.metadata)
    build_adapter(file.tensors, spec=spec)
    lora_of(file.tensors)
    extra_keys(file.tensors, spec)
    describe(spec, file.metadata)


def read(path: Path) -> dict[str, Any]:
    acts.clear()
    Path("/proc/self/clear_refs").write_text("5")
    before, reserved, start = memory("VmRSS"), memory("VmPeak"), time.perf_counter()
    try:
        load(path)
        outcome, sentence = "read", ""
    except BaseException as error:  # noqa: BLE001  (what it is, is what is told)
        outcome, sentence = type(error).__name__, str(error)
    return {
        "name": path.name, "outcome": outcome, "sentence": sentence, "acts": list(acts),
        "peak": memory("VmHWM") - before, "reserved": memory("VmPeak") - reserved,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def main() -> None:
    copyreg.add_extension("posix", "mkdir", EXTENSION)
    for _ in range(2):  # what is read first imports and makes what stays
        load(sys.argv[1])
    sys.addaudithook(lambda event, _: acts.append(event) if event.startswith(ACTS) else None)
    for line in sys.stdin:
        print(json.dumps(read(Path(line.rstrip("\n")))), flush=True)


if __name__ == "__main__":
    main()
