"""Published node ids and inputs are permanent: saved workflows name them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import host

pytestmark = pytest.mark.comfy

SNAPSHOT = Path(__file__).with_name("node_contract.json")
FILES = ("file", "adapter", "encoder", "weights", "face_model")  # their choices are what is there


def described(node: Any) -> dict[str, Any]:
    """A node's inputs (kind, default, choices) and outputs, as the page sees them."""
    inputs = {}
    for group, entries in node.INPUT_TYPES().items():
        for name, (kind, *rest) in entries.items():
            settings = rest[0] if rest else {}
            choices = settings.get("options") if kind == "COMBO" and name not in FILES else None
            told = {
                "kind": kind,
                "default": settings.get("default") if name != "adapter" else None,  # of what is there
                "choices": choices,
                "optional": group != "required",
            }
            inputs[name] = {key: value for key, value in told.items() if value is not None}
    return {"inputs": inputs, "outputs": list(zip(node.RETURN_TYPES, node.RETURN_NAMES))}


def test_ids_inputs_and_outputs() -> None:
    """Change the file only by adding: optional inputs, choices at the end, nodes."""
    ours = {node.GET_SCHEMA().node_id: described(node) for node in host.part("nodes").NODES}
    assert json.loads(json.dumps(ours)) == json.loads(SNAPSHOT.read_text())
