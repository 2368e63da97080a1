"""Encoder folders in parts, in half precision, as a pickle, or all of these beside each other: listed once, read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from tests.support import clip_models, host, model_folders

pytestmark = pytest.mark.comfy

core, encoders, folders, find = (host.part(name) for name in ("ipadapter_core", *("nodes.encoders", "nodes.folders"),
                                                              "nodes.find"))  # fmt: skip
ROOT = "clip_vision"


@pytest.fixture(scope="module")
def model() -> CLIPVisionModelWithProjection:
    config = clip_models.small_config()
    built = CLIPVisionModelWithProjection(config)
    built.load_state_dict(clip_models.random_weights(config), strict=False)
    return built.float().eval()


@pytest.fixture
def root(folder: Path) -> Path:
    return folder / ROOT


Model = CLIPVisionModelWithProjection


def in_parts(folder: Path, model: Model) -> None:
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2


def half(folder: Path, model: Model) -> None:
    model.save_pretrained(folder, variant="fp16")
    assert (folder / "model.fp16.safetensors").exists()


def half_in_parts(folder: Path, model: Model) -> None:
    model.save_pretrained(folder, variant="fp16", max_shard_size="100KB")
    assert len(list(folder.glob("model.fp16-*-of-*.safetensors"))) > 2


def pickled(folder: Path, model: Model) -> None:
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def pickled_in_parts(folder: Path, model: Model) -> None:
    """As transformers wrote large models before safetensors."""
    model.config.save_pretrained(folder)
    weights = list(model.state_dict().items())
    places = {}
    for number in (1, 2):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        part = dict(weights[number - 1 :: 2])
        torch.save(part, folder / name)
        places |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def parts_of_other_names(folder: Path, model: Model) -> None:
    in_parts(folder, model)
    index = folder / "model.safetensors.index.json"
    text = index.read_text()
    for path in list(folder.glob("model-*.safetensors")):
        name = f"vision_{path.name[9:11]}.safetensors"
        text = text.replace(path.name, name)
        path.rename(folder / name)
    index.write_text(text)


def parts_without_an_index(folder: Path, model: Model) -> None:
    in_parts(folder, model)
    (folder / "model.safetensors.index.json").unlink()


def beside_each_other(folder: Path, model: Model) -> None:
    """Of which the one of full precision counts, whatever the others hold."""
    wrong = Model(model.config)
    half(folder, wrong)
    pickled(folder, wrong)
    half_in_parts(folder, wrong)
    in_parts(folder, model)


def with_a_part_missing(folder: Path, model: Model) -> None:
    """But whole in half precision."""
    in_parts(folder, Model(model.config))
    next(folder.glob("model-00002-*")).unlink()
    half(folder, model)


LAYOUTS: list[Callable[[Path, Model], None]] = [
    in_parts, half, half_in_parts, pickled, pickled_in_parts, parts_of_other_names, parts_without_an_index,
    beside_each_other, with_a_part_missing,
]  # fmt: skip


def listed() -> list[str]:
    model_folders.folder_paths.filename_list_cache.clear()
    return folders.own_encoder_files()


def same(found: dict[str, Tensor], model: Model) -> None:
    expected = {key.removeprefix("vision_model."): value for key, value in model.state_dict().items()}
    expected = {key: value for key, value in expected.items() if not key.endswith("position_ids")}
    assert expected.keys() <= found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_folder_is_listed_once_and_read(layout: Callable[[Path, Model], None], root: Path, model: Model) -> None:
    (root / "tower").mkdir()
    layout(root / "tower", model)
    assert listed() == ["tower/"]
    same(core.read_encoder(root / "tower").weights, model)
    assert find.encoder_facts(root / "tower").width == model.config.hidden_size
    for path in (root / "tower").iterdir():  # as older graphs name it
        if path.suffix in (".safetensors", ".bin"):
            assert folders.encoder_path(f"tower/{path.name}") == root / "tower"
    built = encoders.load_encoder("tower/")
    pixels = torch.rand(1, 64, 64, 3)
    with torch.no_grad():
        normal = [torch.tensor(values).view(3, 1, 1) for values in (core.Encoder.mean, core.Encoder.std)]
        expected = model(((pixels * 255).round() / 255).movedim(-1, 1).sub(normal[0]).div(normal[1])).image_embeds
    assert (built.encode_image(pixels)["image_embeds"] - expected).abs().max() < 2e-2 * expected.abs().max()


def test_a_part_that_is_missing_is_named(root: Path, model: Model) -> None:
    (root / "tower").mkdir()
    in_parts(root / "tower", model)
    next((root / "tower").glob("model-00002-*")).unlink()
    for read in (core.read_encoder, find.encoder_facts):
        with pytest.raises(ValueError, match=r"tower.* lacks 1 of .* parts .*model-00002-of-.*: download them"):
            read(root / "tower")
    assert listed() == ["tower/"]


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": {"a": "../out.bin"}}', '{"weight_map": {}}'])
def test_a_damaged_index_is_named(content: str, root: Path, model: Model) -> None:
    (root / "tower").mkdir()
    model.config.save_pretrained(root / "tower")
    (root / "tower" / "vision.bin").write_bytes(b"")
    (root / "tower" / "pytorch_model.bin.index.json").write_text(content)
    assert listed() == ["tower/vision.bin"]
    with pytest.raises(ValueError, match=r"index\.json is damaged .*: download it again"):
        core.read_encoder(root / "tower")


def test_parts_without_a_config(root: Path) -> None:
    """Of a published width: the first part stands for all, and reads all."""
    weights = clip_models.random_weights(clip_models.vision_config("ViT-L-14", layers=1))
    keys = list(weights)
    for number in (1, 2):
        torch.save(
            {key: weights[key] for key in keys[number - 1 :: 2]}, root / f"pytorch_model-0000{number}-of-00002.bin"
        )
    assert listed() == ["pytorch_model-00001-of-00002.bin"]
    path = folders.encoder_path(listed()[0])
    assert find.encoder_facts(path) == core.read_encoder(path).encoder
    assert len(core.read_encoder(path).weights) == len(weights)
    (root / "pytorch_model-00002-of-00002.bin").unlink()
    for read in (core.read_encoder, core.read_encoder_facts):
        with pytest.raises(ValueError, match=r"one part of 2, and pytorch_model-00002-of-00002\.bin is not beside it"):
            read(path)


def test_files_that_are_no_parts_stay(root: Path, model: Model) -> None:
    """Several encoders of people's own names in one folder, whatever config lies there."""
    (root / "many").mkdir()
    in_parts(root / "many", model)
    first = load_file(next(iter(sorted((root / "many").glob("model-00001*")))))
    for name in ("ViT-H.safetensors", "model_of_mine.safetensors"):
        torch.save(first, root / "many" / name)
    assert listed() == ["many/ViT-H.safetensors", "many/model_of_mine.safetensors", "many/"]
