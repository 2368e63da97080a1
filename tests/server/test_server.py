"""Nothing leaks from one prompt to the next in a running server: results and memory."""

from __future__ import annotations

import copy
from typing import Any

import psutil
import pytest
import torch

from tests.support import host, models
from tests.support.small_graphs import digest, image_prompt
from tools.server import Server, ServerError

pytestmark = pytest.mark.comfy


@pytest.fixture(scope="module")
def graph(server: Server) -> dict[str, Any]:
    """A prompt on small models: reference, adapter, one step, the latent's digest."""
    model = models.comfy_model("SD15", 32)
    models.core.write_safetensors(
        server.models / "ipadapter" / "small.safetensors", models.adapter_weights("base", model), {}
    )
    return image_prompt("small.safetensors")


def test_a_b_a_and_without(server: Server, graph: dict[str, Any]) -> None:
    """Another seed in between makes the sampler run again instead of being answered from the cache."""
    red, blue = {"picture": {"color": 0xFF0000}}, {"picture": {"color": 0x0000FF}}
    without = {"sample": {"model": ["models", 0]}}
    base = digest(server, graph, **without)
    a = digest(server, graph, **red)
    b = digest(server, graph, **blue)
    digest(server, graph, **red, sample={"seed": 2})
    again = digest(server, graph, **red)
    digest(server, graph, sample={"model": ["models", 0], "seed": 2})
    base_again = digest(server, graph, **without)
    print(f"\nbase {base[:8]}, A {a[:8]}, B {b[:8]}, A {again[:8]}, base {base_again[:8]}")
    assert a == again
    assert base == base_again
    assert len({base, a, b}) == 3


def test_regional_prompts_with_a_gap_are_apply_after_apply(server: Server, graph: dict[str, Any]) -> None:
    """Through /prompt: two regions on sockets 0 and 3, with masks of different sizes, and their own settings."""
    masks: list[dict[str, Any]] = [
        {"value": 0.75, "width": 64, "height": 64},
        {"value": 0.5, "width": 24, "height": 40},
    ]
    settings = graph["apply"]["inputs"] | {"embeds_scaling": "K+V", "picture_weights": "0.5"}
    prompt = graph | {f"mask{n}": {"class_type": "SolidMask", "inputs": mask} for n, mask in enumerate(masks)}
    own = [settings | {"weight": 0.6, "mask": ["mask0", 0]}, settings | {"layers": "ease in", "mask": ["mask1", 0]}]
    chain = copy.deepcopy(prompt)
    chain["apply"]["inputs"] = own[0]
    chain["second"] = {"class_type": "ImagePromptApply", "inputs": own[1] | {"model": ["apply", 0]}}
    chain["sample"]["inputs"]["model"] = ["second", 0]
    regional = copy.deepcopy(prompt)
    for number, inputs in enumerate(own):
        kept = {name: value for name, value in inputs.items() if name not in ("model", "adapter")}
        regional[f"region{number}"] = {"class_type": "ImagePromptRegion", "inputs": kept}
    grown = {"regions.region_0": ["region0", 0], "regions.region_3": ["region1", 0]}
    sockets = {"model": ["models", 0], "adapter": ["adapter", 0], "text": ["models", 2]}
    regional["apply"] = {"class_type": "ImagePromptRegions", "inputs": sockets | grown}
    regional["sample"]["inputs"] |= {"model": ["apply", 0], "positive": ["apply", 1]}
    found = digest(server, chain), digest(server, regional), digest(server, graph)
    print(f"\nchain {found[0][:8]}, regions {found[1][:8]}, one Apply {found[2][:8]}")
    assert found[0] == found[1] != found[2]


def test_resident_memory_over_200_prompts(server: Server, graph: dict[str, Any]) -> None:
    process, resident, seen = psutil.Process(server.process.pid), {}, set()
    for number in range(1, 201):
        seen.add(digest(server, graph, picture={"color": number * 70001}))
        resident[number] = process.memory_info().rss / 2**20
    print(f"\nthe server's resident memory: {resident[50]:.1f} MiB after 50 prompts, {resident[200]:.1f} MiB after 200")
    assert len(seen) == 200
    assert resident[200] - resident[50] <= 20


def test_a_changed_file_is_seen(server: Server, graph: dict[str, Any]) -> None:
    path = server.models / "ipadapter" / "small.safetensors"
    before = digest(server, graph)
    weights = models.adapter_weights("base", models.comfy_model("SD15", 32), seed=9)
    models.core.write_safetensors(path, weights, {})
    assert digest(server, graph) != before


def test_a_bad_file_gets_a_sentence_and_the_server_goes_on(server: Server, graph: dict[str, Any]) -> None:
    good = digest(server, graph)
    bad = server.models / "ipadapter" / "web page.safetensors"
    bad.write_text("<!DOCTYPE html><html>not found</html>")
    try:
        with pytest.raises(ServerError, match="web page saved in place of the weights"):
            digest(server, graph, adapter={"file": bad.name})
    finally:
        bad.unlink()
    assert digest(server, graph, sample={"seed": 3}) != good
    assert digest(server, graph) == good


def test_nan_from_an_encoder_is_named() -> None:
    import comfy.clip_vision

    from tests.support.small_nodes import ENCODER

    encoder = comfy.clip_vision.ClipVisionModel(ENCODER)
    for value in encoder.model.parameters():
        torch.nn.init.constant_(value, torch.nan)
    prompt = host.part("nodes.prompts.pictures").encode(encoder, torch.zeros(1, 8, 8, 3), "centre")
    adapter = models.loaded_adapter(models.adapter_weights("base", models.comfy_model("SD15", 32)))
    with pytest.raises(ValueError, match="encoder gave NaN"):
        models.apply(models.comfy_model("SD15", 32), adapter, prompt)
