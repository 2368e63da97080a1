"""open_clip's tags: what the hub's cache holds is read without asking the hub, and a download moves the node's bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants
from open_clip import pretrained
from safetensors.torch import save_file

from tests.support import figures, host

pytestmark = pytest.mark.comfy
downloads, encoders = (host.part(f"nodes.{name}") for name in ("downloads", "encoders"))

import comfy.utils  # noqa: E402  (ComfyUI is on the path only after the pack is loaded)
from comfy_execution.utils import CurrentNodeContext  # noqa: E402

LIMIT = 1e-5
VISION = {"image_size": 64, "layers": 3, "width": 96, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
TAG = "open_clip: tiny/mine"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub that does not answer, and an architecture with a tag of its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "tiny.json").write_text(json.dumps({"embed_dim": 48, "vision_cfg": VISION, "text_cfg": TEXT}))
    open_clip.add_model_config(tmp_path / "tiny.json")
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", {"mine": {"hf_hub": "somebody/tiny/"}})
    return tmp_path / "hub"


def put(cache: Path, weights: dict[str, torch.Tensor], name: str) -> None:
    """A file as a download leaves it there."""
    root = cache / "models--somebody--tiny"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("1234")
    (root / "snapshots" / "1234").mkdir(parents=True)
    save = save_file if name.endswith(".safetensors") else torch.save
    save(weights, root / "snapshots" / "1234" / name)


@torch.no_grad()
@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_tag_gives_what_open_clip_gives(name: str, cache: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("tiny").eval()
    for value in model.parameters():
        value.copy_(value.half())
    put(cache, {key: value.contiguous() for key, value in model.state_dict().items()}, name)
    pixels = torch.rand(2, 64, 64, 3).mul(255).round() / 255
    mean, std = (
        torch.tensor(one)[:, None, None] for one in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    ours = encoders.load_encoder(TAG).encode_image(pixels)["image_embeds"]
    theirs = model.encode_image((pixels.movedim(-1, 1) - mean) / std)
    figures.show(f"a tag from {name}, pooled", ours, theirs, LIMIT)


def test_a_hub_that_does_not_answer_is_said(cache: Path) -> None:
    with pytest.raises(
        ValueError, match=r"tiny/mine failed: put https://huggingface.co/somebody/tiny into models/clip"
    ):
        encoders.load_encoder(TAG)
    with pytest.raises(ValueError, match="choose one of mine"):
        encoders.load_encoder("open_clip: tiny/another")


def test_a_published_one_is_said_with_its_file(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"clip_vision_h.safetensors \(1\.3 GB\) into models/clip_vision"):
        encoders.load_encoder(encoders.TAGS[0])


def test_a_download_moves_the_bar_of_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *moved, node_id: seen.append((*moved[:2], node_id)))
    with CurrentNodeContext("prompt", "7", 0):
        bar = downloads._bar()
    with bar(total=100, unit="B", unit_scale=True, desc="model.safetensors") as moving:  # as the hub's package does
        moving.update(40)
        moving.update(60)
    assert seen == [(40, 100, "7"), (100, 100, "7")]
