"""Beside a pack that owns older ids: before or after ours it keeps them all; with three of them all mixes run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import models, needs
from tests.support.older_graphs import CONTRACT
from tests.support.small_graphs import digest, sampled
from tools.comfyui import ROOT, find_or_fetch
from tools.server import PACK, Server

pytestmark = pytest.mark.comfy
SUPPORT = ROOT / "tests" / "support"
THREE = ["IPAdapterEmbeds", "IPAdapterFromParams", "IPAdapterAdvanced"]


def listed(folder: Path) -> list[str]:
    """Names in the order of the file system, in which ComfyUI loads packs."""
    return [path.name for path in folder.iterdir()]


def name_for(folder: Path, is_before: bool) -> str:
    """A name that this file system lists before or after ours."""
    for number in range(60):
        place = folder / f"order{number}"
        for name in (PACK, f"peer_{number}"):
            (place / name).mkdir(parents=True)
        names = listed(place)
        if (names.index(f"peer_{number}") < names.index(PACK)) is is_before:
            return f"peer_{number}"
    needs.missing("a file system that lists folders in more than one order")
    raise AssertionError


@contextmanager
def beside(folder: Path, ids: list[str], is_before: bool) -> Iterator[tuple[Server, str]]:
    """A server with a pack that owns ids, and that pack's name."""
    peer = folder / name_for(folder, is_before)
    peer.mkdir()
    shutil.copy(SUPPORT / "older_pack.py", peer / "__init__.py")
    (peer / "ids.json").write_text(json.dumps(ids))
    weights = models.adapter_weights("base", models.comfy_model("SD15", 32))
    adapters = folder / "models" / "ipadapter"
    adapters.mkdir(parents=True)
    models.core.write_safetensors(adapters / "mine.safetensors", weights, {})
    with Server(find_or_fetch(), folder / "server", folder / "models", [SUPPORT / "small_nodes", peer]) as server:
        order = listed(server.folder / "custom_nodes")
        assert (order.index(peer.name) < order.index(PACK)) is is_before
        yield server, peer.name


def modules(server: Server) -> dict[str, str]:
    """Which pack each of the older ids belongs to."""
    info = server.get("/object_info")
    assert {"ImagePrompt", "ImagePromptApply", "PeerGives"} <= info.keys()
    return {id: info[id]["python_module"].removeprefix("custom_nodes.") for id in CONTRACT}


@pytest.mark.parametrize("is_before", [True, False], ids=["before ours", "after ours"])
def test_a_pack_with_all_ids_keeps_them(is_before: bool, tmp_path: Path) -> None:
    with beside(tmp_path, list(CONTRACT), is_before) as (server, name):
        assert set(modules(server).values()) == {name}
        assert "Traceback" not in server.log


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


WHEN = {"start_at": 0.0, "end_at": 1.0}
HOW = {"weight": 0.8, "weight_type": "linear", "embeds_scaling": "V only", **WHEN}
START = {
    "models": node("TestSmallModels"),
    "picture": node("EmptyImage", width=64, height=64, batch_size=2, color=0xFF8000),
    "loaded": node("IPAdapterModelLoader", ipadapter_file="mine.safetensors"),
    "theirs": node("PeerGives", ipadapter=["loaded", 0], clip_vision=["models", 1], image=["picture", 0]),
    "features": node("IPAdapterEncoder", ipadapter=["theirs", 0], image=["picture", 0], weight=1.0),
    "region": node("IPAdapterRegionalConditioning", image=["picture", 0], image_weight=1.0, prompt_weight=1.0,
                   weight_type="ease in", **WHEN),
    "weights": node("IPAdapterWeights", weights="0, 1", timing="linear", frames=4, start_frame=0, end_frame=9999,
                    add_starting_frames=0, add_ending_frames=0, method="full batch"),
    "joined": node("IPAdapterCombineParams", params_1=["region", 0], params_2=["theirs", 2]),
    "both": node("IPAdapterCombineEmbeds", embed1=["theirs", 1], method="concat", embed2=["features", 0]),
}  # fmt: skip
# What they apply of what ours made, and what ours apply of what they made.
APPLY = {
    "their embeds": node("IPAdapterEmbeds", model=["models", 0], ipadapter=["loaded", 0], pos_embed=["both", 0]),
    "their params": node(
        "IPAdapterFromParams", model=["models", 0], ipadapter=["loaded", 0], ipadapter_params=["joined", 0]
    ),
    "their pictures": node("IPAdapterAdvanced", model=["models", 0], ipadapter=["loaded", 0], image=["picture", 0]),
    "our embeds": node(
        "IPAdapterEmbedsBatch", model=["models", 0], ipadapter=["theirs", 0], pos_embed=["theirs", 1], **HOW
    ),
    "our pictures": node("IPAdapterBatch", model=["models", 0], ipadapter=["theirs", 0], image=["picture", 0],
                         encode_batch_size=0, **HOW),
    "our simple node": node("IPAdapter", model=["models", 0], ipadapter=["theirs", 0], image=["picture", 0], weight=1.0,
                            weight_type="standard", **WHEN),
}  # fmt: skip
TAKEN = {
    "ipadapter": ["loaded", 0], "embeds": ["both", 0], "ipadapter_params": ["joined", 0],
    "weights_strategy": ["weights", 5],
}  # fmt: skip


def latent(server: Server, model: list[Any], apply: dict[str, Any]) -> str:
    graph = START | sampled({"apply": (apply["class_type"], apply["inputs"])})
    return digest(server, graph, sample={"model": model})


def test_a_pack_with_three_ids_mixes_with_ours(tmp_path: Path) -> None:
    with beside(tmp_path, THREE, True) as (server, name):
        owners = modules(server)
        assert {id for id, owner in owners.items() if owner == name} == set(THREE)
        assert set(owners.values()) == {name, PACK}
        assert "3 ids of older nodes belong to another pack" in server.log
        plain = latent(server, ["models", 0], APPLY["their pictures"])
        for title, apply in APPLY.items():
            assert (latent(server, ["apply", 0], apply) == plain) is title.startswith("their"), title
        taken = server.run(START | {"takes": node("PeerTakes", **TAKEN)}).history["outputs"]["takes"]["text"]
        assert taken == ["embeds ipadapter ipadapter_params weights_strategy"]
        frames = node("IPAdapterWeightsFromStrategy", weights_strategy=["theirs", 3])
        shown = node("PreviewAny", source=["frames", 0])
        (text,) = server.run(START | {"frames": frames, "shown": shown}).history["outputs"]["shown"]["text"]
        assert json.loads(text) == [1.0, 0.75, 0.5]
