"""Prompts for a server with the small test nodes: one step of sampling, and the digest of its latent."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tools.server import Server

Graph = dict[str, dict[str, Any]]
SAMPLER = {"seed": 1, "steps": 1, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
APPLY = {"weight": 1.0, "layers": "all", "start_percent": 0.0, "end_percent": 1.0, "combine": "concatenate"}


def sampled(nodes: Mapping[str, tuple[str, dict[str, Any]]], base: str = "SD15", seed: int = 1) -> Graph:
    """The nodes, by name their class and inputs, on the small models of a base; the model of `apply` is sampled."""
    links = {"model": ["apply", 0], "positive": ["models", 2], "negative": ["models", 3], "latent_image": ["empty", 0]}
    whole = {
        "models": ("TestSmallModels", {"base": base}),
        **nodes,
        "empty": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sample": ("KSampler", links | SAMPLER | {"seed": seed}),
        "digest": ("TestLatentDigest", {"latent": ["sample", 0]}),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in whole.items()}


def image_prompt(file: str) -> Graph:
    """An adapter by its file, applied with a black picture."""
    sockets = {"model": ["models", 0], "adapter": ["adapter", 0], "image_prompt": ["encode", 0]}
    return sampled({
        "picture": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0}),
        "adapter": ("ImagePromptLoadAdapter", {"file": file}),
        "encode": ("ImagePromptEncode", {"encoder": ["models", 1], "image": ["picture", 0], "crop": "centre"}),
        "apply": ("ImagePromptApply", sockets | APPLY),
    })  # fmt: skip


def digest(server: Server, graph: Graph, **changes: dict[str, Any]) -> str:
    """Of the latent, with other inputs at these nodes."""
    prompt = copy.deepcopy(graph)
    for node, inputs in changes.items():
        prompt[node]["inputs"] |= inputs
    return str(server.run(prompt).history["outputs"]["digest"]["text"][0])
