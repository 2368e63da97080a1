"""Identities of faces: read from every kind of data, normed and dropped as the families need, refused in a sentence."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import needs
from tests.support.face_data import face_config, identities, write_faces
from trainer.__main__ import main
from trainer.base.frozen import Frozen
from trainer.data.identity import read_identity
from trainer.data.loader import open_loader
from trainer.data.pictures import Unusable
from trainer.data.sources import open_source
from trainer.run import folder as run
from trainer.run import loop
from trainer.settings.config import DataConfig
from trainer.settings.load import load_config
from trainer.step.inputs import to_inputs
from trainer.step.shape import adapter_spec

pytestmark = pytest.mark.slow

NUMBER = 6


def as_lines(folder: Path) -> DataConfig:
    rows = json.loads((folder / "faces.json").read_text())
    (folder / "faces.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return DataConfig(source=str(folder / "faces.jsonl"), identity_column="identity")


def as_folder(folder: Path) -> DataConfig:
    place = folder.parent / "folder"
    place.mkdir()
    for number, identity in enumerate(identities(NUMBER)):
        (place / f"{number}.png").write_bytes((folder / f"{number}.png").read_bytes())
        np.save(place / f"{number}.face.npy", identity.numpy())
    return DataConfig(source=str(place), identity_column="face")


def as_shard(folder: Path) -> DataConfig:
    with tarfile.open(folder.parent / "faces.tar", "w") as archive:
        for number, identity in enumerate(identities(NUMBER)):
            content = io.BytesIO()
            np.save(content, identity.numpy())
            for name, data in (("png", (folder / f"{number}.png").read_bytes()), ("npy", content.getvalue())):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return DataConfig(source=str(folder.parent / "faces.tar"), identity_column="npy")


def as_dataset(folder: Path) -> DataConfig:
    datasets = needs.module("datasets")
    pictures = [str(folder / f"{number}.png") for number in range(NUMBER)]
    columns = {"image": pictures, "text": ["a face"] * NUMBER, "identity": identities(NUMBER).tolist()}
    datasets.Dataset.from_dict(columns).save_to_disk(folder.parent / "dataset")
    return DataConfig(source=str(folder.parent / "dataset"), identity_column="identity")


def as_list(folder: Path) -> DataConfig:
    return DataConfig(source=str(folder / "faces.json"), identity_column="identity")


@pytest.mark.parametrize("kind", [as_list, as_lines, as_folder, as_shard, as_dataset])
def test_every_kind_of_data_gives_the_same_identities(kind: Any, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", NUMBER)
    data = kind(tmp_path / "faces")
    source = open_source(data)
    found = [read_identity(source.read(index).identity) for index in range(len(source))]
    assert all(isinstance(one, Tensor) for one in found)
    assert torch.equal(torch.stack(found), identities(NUMBER))  # type: ignore[arg-type]
    plain = open_source(dataclasses.replace(data, identity_column=""))
    assert plain.read(0).identity is None
    assert plain.digest() != source.digest()


def test_identities_are_normed_and_dropped_as_zeros(tmp_path: Path) -> None:
    config = face_config(tmp_path, "FaceID plus v2", data={"drop_image": 0.5}, run={"batch_size": 12, "steps": 1})
    frozen = Frozen(config.model)
    shape = frozen.base.latent_shape(config.data.resolution)
    (batch,) = open_loader(config, frozen.encoder_facts, "penultimate", latent_shape=shape).batches(0)
    spec = adapter_spec(config.adapter, frozen.base.sites, frozen.encoder_facts)
    inputs = to_inputs(batch, frozen, spec, batch.uniform)
    raw = {f"{number}.png": identity for number, identity in enumerate(identities(12))}
    wanted = torch.stack([raw[name] / raw[name].norm() for name in inputs.names])
    wanted[batch.drop_image] = 0
    features, found = inputs.given
    assert found is not None and features is not None
    assert 0 < int(batch.drop_image.sum()) < 12
    assert torch.allclose(found, wanted, atol=1e-7)
    zero = frozen.encoder(torch.zeros(1, 3, 32, 32), "penultimate")[0]
    assert torch.equal(features[batch.drop_image], zero.expand(int(batch.drop_image.sum()), -1, -1))
    raw_spec = dataclasses.replace(spec, identity="raw")
    as_they_are = to_inputs(batch, frozen, raw_spec, batch.uniform).given.identities
    assert as_they_are is not None
    kept = [place for place, is_dropped in enumerate(batch.drop_image) if not is_dropped]
    assert torch.equal(as_they_are[kept], torch.stack([raw[inputs.names[place]] for place in kept]))


def written(content: Any, path: Path) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.ones(128, dtype=np.float32), "has 128 numbers, expected ArcFace's 512"),
        (np.zeros(512, dtype=np.float32), "is zero or not finite"),
        (np.full(512, np.nan), "is zero or not finite"),
        (np.array([{"a": 1}] * 512, dtype=object), "is damaged, or no .npy or .safetensors file"),
        (np.array(["a"] * 512), "is damaged, or no .npy or .safetensors file"),
        (b"", "is damaged, or no .npy or .safetensors file"),
        (b"\x93NUMPY\x01", "is damaged, or no .npy or .safetensors file"),
        (b"<html>", "is damaged, or no .npy or .safetensors file"),
        (None, "there is no file"),
    ],
)
def test_bad_identities_are_named(content: Any, reason: str, tmp_path: Path) -> None:
    """A sample with one is left out and named, as one with a bad picture; `check` counts it."""
    config = face_config(tmp_path, "FaceID", run={"steps": 2, "batch_size": 6})
    path = tmp_path / "faces" / "1.npy"
    path.unlink() if content is None else written(content, path)
    found = read_identity(path)
    assert isinstance(found, Unusable)
    print(f"\n{found.reason}")
    assert reason in found.reason and "\n" not in found.reason
    loop.train(config, run.start(config))
    skipped = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [(one["name"], one["kind"]) for one in skipped] == [("1.png", "no identity")]


def test_check_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_faces(tmp_path / "faces", NUMBER)
    (tmp_path / "faces" / "1.npy").unlink()
    monkeypatch.chdir(tmp_path)
    settings = ["data.identity_column=identity", "data.workers=0", "data.min_side=16"]
    assert main(["check", str(source), *(word for setting in settings for word in ("--set", setting))]) == 0
    out = capsys.readouterr().out
    assert "no identity        1" in out
    assert "usable               5" in out


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "sample 2 of faces.json has no 'identity' with a face's identity"),
        ([0.5] * 128, "sample 2 of faces.json has 128 numbers in 'identity', expected ArcFace's 512"),
        (["0.5"] * 512, "sample 2 of faces.json has no 'identity' with a face's identity"),
        ("face.png", "sample 2 of faces.json has no 'identity' with a face's identity"),
    ],
)
def test_wrong_values_in_a_list_are_refused(value: Any, message: str, tmp_path: Path) -> None:
    config = face_config(tmp_path, "FaceID")
    source = Path(config.data.source)
    rows = json.loads(source.read_text())
    rows[2] = {key: one for key, one in rows[2].items() if key != "identity"} | ({"identity": value} if value else {})
    source.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message) as found:
        open_source(config.data)
    print(f"\n{found.value}")


@pytest.mark.parametrize(
    ("preset", "override", "message"),
    [
        ("sd15_faceid", 'data.identity_column=""', "reads faces' identities: set data.identity_column"),
        ("sd15", "adapter.family=faceid", "choose one of base, plus, full-face, FaceID, FaceID plus"),
        ("sd15", "adapter.lora_rank=64", "adapter.lora_rank = 64 shapes FaceID, FaceID plus"),
        ("sd15_full_face", "adapter.num_tokens=16", "adapter.num_tokens = 16 shapes base, plus, FaceID, FaceID plus"),
        ("sd15_faceid", "adapter.attention=appended", "trains the projection alone, and FaceID a LoRA as well"),
        ("sd15_faceid", "adapter.lora_rank=-1", "should be 1 or more, or 0"),
    ],
)
def test_values_that_do_not_go_together(preset: str, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as found:
        load_config(preset, [override])
    print(f"\n{found.value}")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", NUMBER)
    folder = as_folder(tmp_path / "faces")
    (Path(folder.source) / "3.face.npy").unlink()
    shard = as_shard(tmp_path / "faces")
    for data, message in (
        (folder, r"3 has no 3\.face\.npy or 3\.face\.safetensors: add its identity"),
        (dataclasses.replace(shard, identity_column="face.npy"), r"0 in faces\.tar has no face\.npy"),
    ):
        with pytest.raises(ValueError, match=message) as found:
            open_source(data)
        print(f"\n{found.value}")
