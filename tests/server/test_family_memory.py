"""Every family loaded, used and unloaded in turn in one running server: memory does not grow."""

from __future__ import annotations

import asyncio
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import psutil
import pytest
import torch

from tests.support import figures, host
from tests.support.small_graphs import APPLY, digest, sampled
from tools.server import Server

pytestmark = [pytest.mark.comfy, pytest.mark.memory]

core = host.part("ipadapter_core")
ROUNDS, LIMIT = 5, 0.02
TEXT_EVENT = 3  # of ComfyUI's binary messages
CHANNELS = 32  # of TestSmallModels
THIN = core.ResamplerProjection(2048, 1, 12, 64)
SHAPES = {
    # family: base, fields of the spec, (pooled, hidden, states) of the encoder
    "base": ("SD15", ("pooled", 1024, 768, 4, core.LinearProjection()), {}, (1024, 1, 1)),
    "base of SDXL": ("SDXL", ("pooled", 1280, 2048, 4, core.LinearProjection()), {}, (1280, 1, 1)),
    "plus": ("SD15", ("penultimate", 1280, 768, 16, core.ResamplerProjection(768, 1, 12, 64)), {}, (1, 1280, 257)),
    "full-face": ("SD15", ("penultimate", 1280, 768, 257, core.MLPProjection(1280)), {}, (1, 1280, 257)),
    "FaceID": ("SD15", (None, 0, 768, 4, core.IdentityProjection(1024)), {"identity": "normed"}, (1, 1, 1)),
    "FaceID of SDXL": ("SDXL", (None, 0, 2048, 4, core.IdentityProjection(64)), {"identity": "normed"}, (1, 1, 1)),
    "FaceID portrait": ("SD15", (None, 0, 768, 16, core.IdentityProjection(64)), {"identity": "normed"}, (1, 1, 1)),
    "FaceID portrait unnorm": ("SDXL", (None, 0, 2048, 16, THIN), {"identity": "raw"}, (1, 1, 1)),
    "FaceID plus": (
        "SD15",
        ("penultimate", 1280, 768, 4, core.IdentityResamplerProjection(64, core.ResamplerProjection(768, 1, 12, 64))),
        {"identity": "normed"},
        (1, 1280, 257),
    ),
    "Kolors plus": ("Kolors", ("penultimate", 1024, 2048, 16, THIN), {}, (1, 1024, 577)),
    "Kolors FaceID plus": (
        "Kolors",
        ("penultimate", 1024, 2048, 6, core.IdentityResamplerProjection(64, core.ResamplerProjection(4096, 1, 2, 64))),
        {"identity": "raw", "token_dim": 4096},
        (1, 1024, 577),
    ),
}


def write(folder: Any, family: str) -> None:
    """A file of this family, thin, with a LoRA where FaceID has one."""
    from tests.support import published

    base, (feature, feature_dim, context, tokens, projection), fields, _ = SHAPES[family]
    widths = {index: width * CHANNELS // 320 for index, width in published.WIDTHS[context].items()}
    spec = core.AdapterSpec(family, feature, feature_dim, context, tokens, tuple(widths), projection, **fields)
    tensors = core.IPAdapter(spec, widths, device="meta").state_dict()
    if family.split(" of ")[0] in ("FaceID", "FaceID plus"):
        tensors |= published.lora(context, widths, rank=16)
    path = folder / f"{family}.safetensors"
    core.write_safetensors(path, published.filled(tensors, torch.float16), {})
    found = core.detect(core.read_adapter(path).tensors)
    assert (found.family, core.base_name(found)) == (family.split(" of ")[0], {"SD15": "SD1.5"}.get(base, base))


def graph(family: str, seed: int) -> dict[str, Any]:
    base, *_, (pooled, hidden, states) = SHAPES[family]
    sizes = {"pooled": pooled, "hidden": hidden, "states": states, "seed": seed}
    sockets = {"model": ["models", 0], "adapter": ["adapter", 0], "image_prompt": ["prompt", 0]}
    nodes = {
        "adapter": ("ImagePromptLoadAdapter", {"file": f"{family}.safetensors"}),
        "prompt": ("TestRandomPrompt", sizes),
        "apply": ("ImagePromptApply", sockets | APPLY),
    }
    return sampled(nodes, base, seed)


def test_rounds_of_all_families(server: Server, request: pytest.FixtureRequest) -> None:
    folder = server.models / "ipadapter"
    for family in SHAPES:
        write(folder, family)
    process = psutil.Process(server.process.pid)
    resident, digests = [], []
    try:
        for number in range(ROUNDS):
            for family in SHAPES:
                digests.append(digest(server, graph(family, number)))
                server.free()
            resident.append(process.memory_info().rss / 2**20)
    finally:
        for family in SHAPES:
            (folder / f"{family}.safetensors").unlink()
    # The allocator keeps what a round has asked for, now and then some more; a leak adds to every round.
    growth = min(resident[3:]) / max(resident[1:3]) - 1
    shown = ", ".join(f"{value:.1f}" for value in resident)
    line = f"{len(SHAPES)} families, {ROUNDS} rounds: {shown} MiB, the last two against the two before: {growth:+.2%}"
    figures.row(request, "memory of a server", line)
    assert len(set(digests)) == len(SHAPES) * ROUNDS
    assert growth <= LIMIT


def test_the_node_says_what_a_file_is_and_its_licence(server: Server) -> None:
    """The page shows texts that come for a node; here they are read as the page reads them."""
    folder = server.models / "ipadapter"
    write(folder, "FaceID")

    async def texts() -> list[str]:
        found: list[str] = []
        async with (
            aiohttp.ClientSession(server.address) as session,
            session.ws_connect("/ws?clientId=listener", max_msg_size=0) as messages,
        ):
            async with session.post("/prompt", json={"prompt": graph("FaceID", 9), "client_id": "listener"}) as answer:
                assert answer.status == 200
            async for message in messages:
                if message.type is aiohttp.WSMsgType.BINARY:
                    kind, length = struct.unpack(">II", message.data[:8])
                    if kind == TEXT_EVENT:
                        found.append(f"{message.data[8 : 8 + length].decode()}: {message.data[8 + length :].decode()}")
                elif message.json()["type"] in ("execution_success", "execution_error"):
                    return found
        return found

    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's may have a running event loop
            said = thread.submit(asyncio.run, asyncio.wait_for(texts(), 60)).result()
    finally:
        (folder / "FaceID.safetensors").unlink()
    print("\n" + "\n".join(said))
    (text,) = (text for text in said if text.startswith("adapter: "))
    for words in ("FaceID adapter for SD1.5", "4 image tokens for each face", "research only", "LoRA"):
        assert words in text
