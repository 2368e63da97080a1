"""Hostile files through a running server: each is refused in a sentence that names the node, and the server goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest

from tests.support import host, models
from tests.support.hostile import Case, cases
from tests.support.small_graphs import digest, image_prompt
from tools.server import Server, ServerError

pytestmark = pytest.mark.comfy
SLACK = 48 << 20  # bytes beyond twice the file's size, for a prompt of its own as well


def some() -> list[Case]:
    """Every fifth, and all of the kinds that a server makes easier."""
    return [case for n, case in enumerate(cases()) if n % 5 == 0 or case.kind in ("links and places", "zip bombs")]


def refused(server: Server, case: Case, path: Path, mark: Path) -> tuple[str, int]:
    """What the server answers to this file in its models/ipadapter, and the file's size."""
    case.write(path, mark)
    try:
        size = path.stat().st_size if path.is_file() else 0
        with pytest.raises(ServerError) as error:
            server.run(image_prompt(path.name))
        return str(error.value), size
    finally:
        for rest in path.parent.glob(f"{path.name}*"):
            shutil.rmtree(rest) if rest.is_dir() and not rest.is_symlink() else rest.unlink()


def test_hostile_files_in_a_running_server(server: Server, tmp_path: Path) -> None:
    core, folder = host.part("ipadapter_core"), server.models / "ipadapter"
    core.write_safetensors(
        folder / "whole.safetensors", models.adapter_weights("base", models.comfy_model("SD15", 32)), {}
    )
    process = psutil.Process(server.process.pid)
    before = digest(server, image_prompt("whole.safetensors"))
    worst, told = 0, []
    for number, case in enumerate(some()):
        path = folder / f"hostile_{number}.safetensors"
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        resident = process.memory_info().rss
        answer, size = refused(server, case, path, tmp_path / str(number))
        line = next(x for x in Path(f"/proc/{process.pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
        risen = int(line.split()[1]) * 1024 - resident
        worst = max(worst, risen - 2 * size)
        assert answer.startswith("ImagePromptLoadAdapter (node adapter): ") and "\n" not in answer, (case.name, answer)
        assert risen <= 2 * size + SLACK, case.name
        told.append(answer)
    assert process.is_running() and list(tmp_path.iterdir()) == []
    digest(server, image_prompt("whole.safetensors"), sample={"seed": 2})
    assert digest(server, image_prompt("whole.safetensors")) == before
    print(
        f"\n{len(told)} hostile files through /prompt: {len(told)} refused in a sentence, 0 crashes, 0 executions of "
        f"code; at most {worst / 2**20:.1f} MiB beyond twice a file's size; the server's next picture is the same"
    )
