"""Older graphs on a real server: what it answers programs, and a prompt as Krita AI Diffusion sends it, with nulls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import models
from tests.support.small_graphs import digest, sampled
from tools.server import Server

pytestmark = pytest.mark.comfy
CONTRACT = json.loads((Path(__file__).parents[1] / "nodes" / "older_contract.json").read_text())
NAME = "small ip-adapter_sd15.safetensors"
WHEN = {"start_at": 0.0, "end_at": 1.0}


@pytest.fixture(scope="module")
def graph(server: Server) -> dict[str, Any]:
    """An adapter by its file, two pictures encoded and combined, applied without a mask; one step."""
    weights = models.adapter_weights("base", models.comfy_model("SD15", 32))
    models.core.write_safetensors(server.models / "ipadapter" / NAME, weights, {})
    encode = {"ipadapter": ["adapter", 0], "clip_vision": ["models", 1], "mask": None}
    apply = {"model": ["models", 0], "ipadapter": ["adapter", 0], "clip_vision": ["models", 1], "attn_mask": None}
    return sampled({
        "red": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0xFF0000}),
        "blue": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0x0000FF}),
        "adapter": ("IPAdapterModelLoader", {"ipadapter_file": NAME}),
        "first": ("IPAdapterEncoder", {**encode, "image": ["red", 0], "weight": 1.0}),
        "second": ("IPAdapterEncoder", {**encode, "image": ["blue", 0], "weight": 0.5}),
        "both": ("IPAdapterCombineEmbeds", {"embed1": ["first", 0], "embed2": ["second", 0], "method": "concat"}),
        "apply": (
            "IPAdapterEmbeds",
            {
                **apply,
                "pos_embed": ["both", 0],
                "weight": 0.8,
                "weight_type": "linear",
                "embeds_scaling": "V only",
                **WHEN,
            },
        ),
    })  # fmt: skip


def test_what_the_server_says(server: Server, graph: dict[str, Any]) -> None:
    info = server.get("/object_info")
    assert CONTRACT.keys() <= info.keys()
    for id in CONTRACT:
        assert info[id]["python_module"].startswith("custom_nodes.") and info[id]["deprecated"]
    assert NAME in info["IPAdapterModelLoader"]["input"]["required"]["ipadapter_file"][0]
    assert info["IPAdapterUnifiedLoader"]["input"]["required"]["preset"][0][1] == "STANDARD (medium strength)"


def test_a_prompt_of_krita(server: Server, graph: dict[str, Any]) -> None:
    found = digest(server, graph)
    assert found != digest(server, graph, sample={"model": ["models", 0]})
    assert found != digest(server, graph, second={"weight": 1.0})
    assert found == digest(server, graph, apply={"neg_embed": None}, sample={"seed": 1})


def test_the_help_is_served(server: Server) -> None:
    info = server.get("/object_info/IPAdapterAdvanced")["IPAdapterAdvanced"]
    pack = info["python_module"].removeprefix("custom_nodes.")
    assert (server.folder / "custom_nodes" / pack / "web" / "docs" / "IPAdapterAdvanced.md").is_file()
