"""Encoder auto: known by content, whatever files are called; where it is missing, named with its address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import host, published
from tests.support.model_folders import Header, encoder_shapes

pytestmark = pytest.mark.comfy
find, choice, folders = (host.part(f"nodes.{name}") for name in ("find", "forms.encoder_choice", "folders"))
image_prompt, load_encoder, load_adapter = (
    host.part(f"nodes.forms.{name}") for name in ("image_prompt", "load_encoder", "load_adapter")
)
core = host.part("ipadapter_core")

SD15 = "base SD1.5 (ViT-H), light"
# The layout's name, the encoder's architecture by open_clip's name, and the encoder's for people.
NEEDS = {
    SD15: ("ViT-H-14", "CLIP ViT-H/14"),
    "base SD1.5 vit-G": ("ViT-bigG-14", "CLIP ViT-bigG/14"),
    "base SDXL (bigG)": ("ViT-bigG-14", "CLIP ViT-bigG/14"),
    "plus, plus-face, composition SDXL vit-h": ("ViT-H-14", "CLIP ViT-H/14"),
    "full-face SD1.5": ("ViT-H-14", "CLIP ViT-H/14"),
    "FaceID plus v1 and v2 SD1.5": ("ViT-H-14", "CLIP ViT-H/14"),
    "Kolors plus": ("ViT-L-14-336", "CLIP ViT-L/14-336"),
}
MISLEADING = {"ViT-H-14": "CLIP-ViT-bigG-14", "ViT-bigG-14": "clip_vit_l_336", "ViT-L-14-336": "CLIP-ViT-H-14"}


@pytest.fixture
def adapter_file(folder: Path) -> Header:
    return Header(folder / "ipadapter")


@pytest.fixture
def encoder_file(folder: Path) -> Header:
    return Header(folder / "clip_vision")


def spec(layout: str) -> Any:
    return core.detect(published.LAYOUTS[layout])


def answer(adapter: str | None = None, encoder: str | None = None) -> Any:
    return image_prompt.ImagePromptNode.validate_inputs(adapter, encoder)


@pytest.mark.parametrize("layout", NEEDS)
def test_content_counts_and_names_do_not(layout: str, encoder_file: Header) -> None:
    for architecture, name in MISLEADING.items():
        encoder_file(f"some/{name}.safetensors", encoder_shapes(architecture))
    encoder_file("an adapter.safetensors", published.LAYOUTS[SD15])
    (encoder_file.root / "half of a download.safetensors").write_bytes(b"\0" * 40)
    found = find.encoder_for(spec(layout), "any.bin")
    assert found.name == f"some/{MISLEADING[NEEDS[layout][0]]}.safetensors" and found.why == "the one that fits"


@pytest.mark.parametrize("layout", NEEDS)
def test_a_missing_one_is_named_with_size_and_address(layout: str, folder: Path, encoder_file: Header) -> None:
    architecture, name = NEEDS[layout]
    for other in MISLEADING.keys() - {architecture}:
        encoder_file(f"{architecture}{other}.safetensors", encoder_shapes(other))
    with pytest.raises(ValueError) as error:
        find.encoder_for(spec(layout), "mine.bin")
    print(f"\n{error.value}")
    for part in (f"{name} is missing, which mine.bin needs", " GB)", "models/clip_vision", "https://huggingface.co/"):
        assert part in str(error.value)


def test_the_first_of_several_is_taken_and_said(encoder_file: Header) -> None:
    encoder_file("b.safetensors", encoder_shapes("ViT-H-14"))
    encoder_file("a.safetensors", encoder_shapes("ViT-H-14"))
    found = find.encoder_for(spec(SD15), "mine.bin")
    assert (found.name, found.why) == ("a.safetensors", "the first of 2 that fit")


def as_folder(root: Path) -> str:
    """A transformers folder of ViT-H."""
    Header(root)("cloned/model.safetensors", encoder_shapes("ViT-H-14"))
    config = {"hidden_size": 1280, "projection_dim": 1024, "image_size": 224, "patch_size": 14}
    (root / "cloned" / "config.json").write_text(json.dumps(config))
    return "cloned/"


def test_a_folder_is_listed_once_and_found(encoder_file: Header) -> None:
    name = as_folder(encoder_file.root)
    encoder_file("z/model.safetensors", encoder_shapes("ViT-bigG-14"))  # a folder without config.json
    assert [Path(one).as_posix() for one in folders.own_encoder_files()] == ["z/model.safetensors", "cloned"]
    assert find.encoder_for(spec(SD15), "mine.bin").name == name
    inside = folders.encoder_path("cloned/model.safetensors")  # as graphs name it that were saved before
    assert inside == folders.encoder_path(name) == encoder_file.root / "cloned"


def test_without_an_adapter_the_only_kind_is_taken(folder: Path, encoder_file: Header) -> None:
    encoder_file("b.safetensors", encoder_shapes("ViT-H-14"))
    assert choice.chosen_encoder("auto", None) == ("b.safetensors", "the only one there")
    encoder_file("a.safetensors", encoder_shapes("ViT-H-14"))
    assert choice.chosen_encoder("auto", None) == ("a.safetensors", "the first of its kind")
    encoder_file("c.safetensors", encoder_shapes("ViT-bigG-14"))
    with pytest.raises(ValueError, match=r"There are 3 \(a.*, b.*, c.*\): connect Load IP-Adapter to 'adapter'"):
        choice.chosen_encoder("auto", None)


def test_identities_need_no_encoder(folder: Path) -> None:
    with pytest.raises(ValueError, match="needs no image encoder"):
        find.encoder_for(spec("FaceID SD1.5"), "f.bin")


def test_a_pair_is_refused_before_the_run(folder: Path, adapter_file: Header, encoder_file: Header) -> None:
    adapter_file("a.safetensors", published.LAYOUTS[SD15])
    adapter_file("faces.safetensors", published.LAYOUTS["FaceID plus v1 and v2 SD1.5"])
    adapter_file("vae.safetensors", {"decoder.conv_in.weight": published.LAYOUTS[SD15]["image_proj.norm.weight"]})
    encoder_file("g.safetensors", encoder_shapes("ViT-bigG-14"))
    assert "CLIP ViT-H/14 is missing" in answer("a.safetensors", "auto")
    assert "g.safetensors does not fit a.safetensors" in answer("a.safetensors", "g.safetensors")
    assert "does not fit" in answer("a.safetensors", "open_clip: ViT-bigG-14/laion2b_s39b_b160k")
    assert answer("a.safetensors", "open_clip: ViT-H-14/laion2b_s32b_b79k") is True
    assert "is not offered" in answer("a.safetensors", "open_clip: ViT-H-14/another")
    assert "reads faces: use Encode Faces" in answer("faces.safetensors", "auto")
    assert "vae.safetensors: this file is a VAE" in answer("vae.safetensors", "auto")
    assert "'gone.bin' was not found" in answer("gone.bin", "auto")
    assert "'gone.bin' was not found" in answer("a.safetensors", "gone.bin")
    assert "'../a.safetensors' was not found" in answer("../a.safetensors", "auto")
    encoder_file("h.safetensors", encoder_shapes("ViT-H-14"))
    assert answer("a.safetensors", "auto") is answer("a.safetensors", "h.safetensors") is True


def test_linked_values_are_not_known_and_not_refused(folder: Path, adapter_file: Header) -> None:
    adapter_file("a.safetensors", published.LAYOUTS[SD15])
    assert answer(None, None) is answer(None, "auto") is answer("a.safetensors", None) is True
    assert load_adapter.LoadAdapter.validate_inputs() is load_encoder.LoadEncoder.validate_inputs() is True
    assert "'b.bin' was not found" in load_adapter.LoadAdapter.validate_inputs("b.bin")
    assert "'b.bin' was not found" in load_encoder.LoadEncoder.validate_inputs("b.bin")


def test_headers_are_read_once(folder: Path, adapter_file: Header, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter_file("a.safetensors", published.LAYOUTS[SD15])
    find.adapter_facts(adapter_file.root / "a.safetensors")
    monkeypatch.setattr(find, "read_shapes", None)  # reading again would fail
    assert "CLIP ViT-H/14 is missing" in answer("a.safetensors", "auto")


def test_image_prompt_starts_with_an_adapter_that_it_can_run(folder: Path, adapter_file: Header) -> None:
    adapter_file("a faces.safetensors", published.LAYOUTS["FaceID SD1.5"])
    (adapter_file.root / "b torn.safetensors").write_bytes(b"\0" * 40)
    adapter_file("c.safetensors", published.LAYOUTS[SD15])
    entry = image_prompt.ImagePromptNode.INPUT_TYPES()["required"]["adapter"][1]
    assert entry["default"] == "c.safetensors" and entry["options"][:3] == [
        "a faces.safetensors", "b torn.safetensors", "c.safetensors",
    ]  # fmt: skip
