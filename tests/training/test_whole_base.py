"""A base or encoder that is not whole is one sentence that names the file, before any weight is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from tests.support import runs, tiny_models
from trainer.__main__ import main
from trainer.base.encoder import load_encoder
from trainer.base.files import BaseFiles
from trainer.settings.config import ModelConfig

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    runs.write_config(runs.tiny_config(place), place / "good.toml")
    return place


@pytest.fixture
def base(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "base", tmp_path / "copy"))


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *changes: str, command: str = "train") -> str:
    settings = [part for change in (*changes, f"run.folder={folder / 'run'}") for part in ("--set", change)]
    assert main([command, str(folder / "good.toml"), *settings]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    print(f"\n{message}")
    assert message.startswith("error: ")
    assert not (folder / "run" / "config.toml").exists()
    return message


def only_fp16(base: Path) -> None:
    for path in [*base.glob("*/*.safetensors")]:
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


def parted(base: Path) -> None:
    """Weights in several files, none of which is there."""
    (base / UNET).rename(base / "elsewhere")
    (base / f"{UNET}.index.json").write_text('{"weight_map": {"a": "1.safetensors"}}')


def written(name: str, content: bytes | str) -> Callable[[Path], object]:
    return lambda base: (base / name).write_bytes(content.encode() if isinstance(content, str) else content)


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "only fp16": (only_fp16, "set model.variant to fp16"),
    "LFS pointer": (written(UNET, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "empty weights": (written(TEXT, ""), f"{TEXT} has no bytes"),
    "cut UNet": (lambda base: written(UNET, (base / UNET).read_bytes()[:5000])(base), f"{UNET} is damaged or cut off"),
    "no vae weights": (lambda base: (base / "vae/diffusion_pytorch_model.safetensors").unlink(), "vae has no weights"),
    "no vae": (lambda base: shutil.rmtree(base / "vae"), "vae"),
    "no tokenizer": (lambda base: shutil.rmtree(base / "tokenizer"), "no folder tokenizer"),
    "no words": (lambda base: (base / "tokenizer/tokenizer.json").unlink(), "tokenizer has no words"),
    "broken words": (written("tokenizer/tokenizer.json", '{"cut'), "tokenizer.json is not valid JSON"),
    "no text encoder": (lambda base: shutil.rmtree(base / "text_encoder"), "no folder text_encoder"),
    "no config": (lambda base: (base / "text_encoder/config.json").unlink(), "text_encoder has no config.json"),
    "broken config": (written("unet/config.json", "{"), "unet/config.json is not valid JSON"),
    "config of other bytes": (written("vae/config.json", b"\xff{}"), "vae/config.json is not UTF-8"),
    "config that is a list": (written("vae/config.json", "[]"), "vae/config.json holds a list"),
    "no schedule": (lambda base: shutil.rmtree(base / "scheduler"), "scheduler/scheduler_config.json"),
    "a part of several is gone": (parted, "unet has no 1.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_or_broken_is_named(
    case: str, folder: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = CASES[case]
    change(base)
    assert words in refused(folder, capsys, f"model.base={base}")


def test_a_variant_without_files(folder: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(folder, capsys, "model.variant=fp16")
    assert "no diffusion_pytorch_model.fp16.safetensors, only diffusion_pytorch_model.safetensors" in message
    only_fp16(base)
    BaseFiles(ModelConfig(base=str(base), variant="fp16")).load_unet()


def test_weights_that_lack_some_are_not_filled_with_random_ones(base: Path) -> None:
    for name in (TEXT, "vae/diffusion_pytorch_model.safetensors"):
        tensors = load_file(base / name)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, base / name, {"format": "pt"})
    files = BaseFiles(ModelConfig(base=str(base)))
    for load in (files.load_text_encoders, files.load_vae):
        with pytest.raises(ValueError, match=r"lack 1 that its config\.json asks for") as found:
            load()
        print(f"\n{found.value}")


@pytest.mark.parametrize("command", ["plan", "train"])
def test_an_inpainting_base(command: str, folder: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tiny_models.tiny_unet()
    config = {key: value for key, value in plain.config.items() if not key.startswith("_")}
    UNet2DConditionModel(**{**config, "in_channels": 9}).save_pretrained(base / "unet")
    message = refused(folder, capsys, f"model.base={base}", command=command)
    assert "the base is for inpainting: its UNet takes 9 channels" in message


def test_a_damaged_encoder_and_one_that_cannot_be_fetched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Path(shutil.copytree(folder / "encoder", tmp_path / "encoder"))
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    assert "model.safetensors is damaged or cut off" in refused(folder, capsys, f"model.encoder={encoder}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    tag = next(tag for tag in open_clip.list_pretrained_tags_by_model("ViT-B-32") if tag.startswith("datacomp"))
    with pytest.raises(ValueError, match="cannot be fetched") as found:
        load_encoder(f"ViT-B-32/{tag}")
    print(f"\n{found.value}")
    assert "\n" not in str(found.value)


def test_data_is_looked_at_before_the_base_is_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = ("run.parallel=ddp", "run.processes=2")
    assert "there is no data nowhere" in refused(folder, capsys, "data.source=nowhere", *many)
    assert "there is no base nowhere" in refused(folder, capsys, "model.base=nowhere", *many)
