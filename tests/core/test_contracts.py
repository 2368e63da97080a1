"""What other programs rely on: the names and shapes in the adapter files that we write never change."""

import json
from pathlib import Path

import pytest

from ipadapter_core import IPAdapter, detect
from tests.support import published

SNAPSHOT = json.loads(Path(__file__).with_name("checkpoint_keys.json").read_text())
LAYOUTS = {"base": "base SD1.5 (ViT-H), light", "plus": "plus, plus-face, composition SD1.5"}


@pytest.mark.parametrize("family", LAYOUTS)
def test_checkpoint_keys(family):
    """Of SD1.5's adapters: our own, the committed ones, and those of the reference's package."""
    theirs = published.LAYOUTS[LAYOUTS[family]]
    ours = IPAdapter(detect(theirs), published.SD15_WIDTHS, device="meta").state_dict()
    assert {key: list(value.shape) for key, value in ours.items()} == SNAPSHOT[family]
    assert {key: list(value.shape) for key, value in theirs.items()} == SNAPSHOT[family]
