"""The files of a cache: mapped once whatever their number, of older versions too, with checksums, made part by part."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.support import runs
from trainer.__main__ import main
from trainer.base.encoder import encoder_facts
from trainer.commands.cache import build_cache
from trainer.commands.verify import verify_cache
from trainer.data import shards
from trainer.data.batch import Batch
from trainer.data.loader import open_loader
from trainer.data.shards import PART, Shards, shard_rows
from trainer.settings.config import Config, tables
from trainer.settings.load import parse_config


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    values = tables(config)
    for section, some in sections.items():
        values[section] |= some
    return parse_config(values)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A cache of 12 pictures, one of them damaged, whose files have five rows."""
    folder = tmp_path_factory.mktemp("made")
    config = runs.tiny_config(folder, data={"cache": str(folder / "cache")})
    rows = json.loads(Path(config.data.source).read_text())
    (Path(config.data.source).parent / rows[3]["image_file"]).write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SMALL", 5)
        build_cache(config)
    return config


def copied(config: Config, to: Path) -> Config:
    shutil.copytree(config.data.cache, to)
    return changed(config, data={"cache": str(to)})


def batches(config: Config) -> list[Batch]:
    return list(open_loader(config, encoder_facts(config.model.encoder), "pooled").batches(0))


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert (a.names, a.geometries, a.skipped) == (b.names, b.geometries, b.skipped)
        assert a.texts is not None and b.texts is not None
        pairs = [(a.moments, b.moments), (a.features, b.features), *((a.texts[n], b.texts[n]) for n in a.texts)]
        assert all(x is not None and y is not None and torch.equal(x, y) for x, y in pairs)


def test_a_file_is_opened_once_in_a_run(made: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Path, int]] = []
    map_file = Shards._map

    def counted(self: Shards, number: int) -> Any:
        opened.append((self.folder, number))
        return map_file(self, number)

    monkeypatch.setattr(Shards, "_map", counted)
    found = batches(changed(made, run={"steps": 12}))
    files = list(Path(made.data.cache).rglob("*.safetensors"))
    print(f"\n{len(opened)} files mapped for {sum(len(batch) for batch in found)} samples")
    assert len(opened) == len(set(opened)) == len(files) > 8
    monkeypatch.setattr(shards, "MAPPED", 1)  # every part forgets all but the last
    assert_equal(batches(changed(made, run={"steps": 12})), found)
    assert len(opened) > 2 * len(files)


def test_files_of_any_size_hold_the_same(made: Config, tmp_path: Path) -> None:
    whole = changed(made, data={"cache": str(tmp_path / "whole")}, cache={"batch_size": 5})
    build_cache(whole)
    assert len(list((tmp_path / "whole" / "latents").glob("*.safetensors"))) == 1
    assert_equal(batches(whole), batches(changed(made, cache={"batch_size": 5})))
    assert [shard_rows(rows) for rows in (1, 2**14, 2**14 + 1, 2**22 + 1)] == [256, 256, 1024, 4096]


def test_the_first_caches_are_read(made: Config, tmp_path: Path) -> None:
    older = copied(made, tmp_path / "older")
    for part in Path(older.data.cache).glob(f"*/{PART}"):
        for path in part.parent.glob("*.safetensors"):
            save_file(load_file(path), path)  # without a checksum
    samples = Path(older.data.cache) / "samples"
    for path in samples.glob("*.safetensors"):
        tensors = load_file(path)
        with safe_open(samples.parent.parent / made.data.cache / "samples" / path.name, "pt") as file:
            faults = json.loads(file.metadata()["rows"])["fault"]
        text, ends = tensors["names"].numpy().tobytes().decode(), [0, *tensors["names_end"].tolist()]
        ends_of, numbers = [0, *tensors["captions_end"].tolist()], tensors["captions"].tolist()
        rows = {
            "name": [text[a:b] for a, b in itertools.pairwise(ends)],
            "row": [None if row < 0 else row for row in tensors["row"].tolist()],
            "captions": [numbers[a:b] for a, b in itertools.pairwise(ends_of)],
            "fault": faults,
        }
        save_file({"sizes": tensors["sizes"]}, path, {"rows": json.dumps(rows)})
    found = batches(older)
    assert_equal(found, batches(made))
    assert [fault.reason for batch in found for fault in batch.skipped]
    verify_cache(older)  # has no checksums, and says so


def test_changed_bytes_are_found_when_asked_for(
    made: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = copied(made, tmp_path / "cache")
    verify_cache(config)
    path = Path(config.data.cache) / "latents" / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    (Path(config.data.cache) / "text" / "00000.safetensors").unlink()
    file = runs.write_config(config, tmp_path / "config.toml")
    assert main(["cache", str(file), "--verify"]) == 1
    said = capsys.readouterr().err
    print(said)
    assert "2 of " in said and "latents/00001.safetensors, " in said and "text/00000.safetensors; delete them" in said
    with pytest.raises(ValueError, match=r"there is no cache in data.cache = ''"):
        verify_cache(changed(config, data={"cache": ""}))


def test_parts_made_alone_are_those_made_together(
    made: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SMALL", 5)
    config = changed(made, data={"cache": str(tmp_path / "parts")})
    with pytest.raises(ValueError, match=r"--only faces: .* choose among samples, latents, text, features"):
        build_cache(config, ["faces"])
    build_cache(config, ["features"])
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["pooled"]
    build_cache(config, ["latents", "samples"])
    with pytest.raises(ValueError, match="has no text: run python -m trainer cache"):
        batches(config)
    build_cache(config)
    both = [
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
        for folder in (tmp_path / "parts", Path(made.data.cache))
    ]
    assert both[0] == both[1]


def test_a_sample_that_can_no_longer_be_used_is_named(made: Config, tmp_path: Path) -> None:
    config = copied(made, tmp_path / "cache")
    shutil.rmtree(Path(config.data.cache) / "pooled")
    source = Path(config.data.source)
    row = json.loads(source.read_text())[0]
    path = source.parent / row["image_file"]
    content = path.read_bytes()
    try:
        path.write_bytes(b"no picture")
        with pytest.raises(
            ValueError, match=r"cannot be used now \(damaged.*\), and it was otherwise when .* was begun"
        ):
            build_cache(config)
    finally:
        path.write_bytes(content)
    build_cache(config)
    assert_equal(batches(config), batches(made))
