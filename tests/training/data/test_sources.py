"""Every format that data comes in, and the faults that lists have."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import datasets
import pytest
from PIL import Image

from tests.support.data_loading import real_pictures
from trainer.data.pictures import Picture, decode
from trainer.data.record import Source
from trainer.data.sources import open_source
from trainer.settings.config import DataConfig

CAPTIONS = [("a cat",), ("a dog", "a big dog"), ("",)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return real_pictures(tmp_path_factory.mktemp("pictures"), 4)


def pixels(picture: Picture) -> bytes:
    image = decode(picture)
    assert isinstance(image, Image.Image), image
    return image.tobytes()


def holds(source: Source, pictures: list[Path], condition: Path | None = None) -> None:
    """Three samples with their captions and pictures, also after a way into another process."""
    for reader in (source, pickle.loads(pickle.dumps(source))):  # noqa: S301
        assert len(reader) == 3
        for index, captions in enumerate(CAPTIONS):
            sample = reader.read(index)
            assert sample.captions == reader.captions(index) == captions
            assert pixels(sample.image) == pixels(pictures[index])
            assert (sample.condition is None) == (condition is None)
            if condition is not None and sample.condition is not None:
                assert pixels(sample.condition) == pixels(condition)
    with pytest.raises(IndexError):
        source.read(3)


def rows(pictures: list[Path]) -> list[dict[str, object]]:
    texts: list[object] = ["a cat", ["a dog", "a big dog"], None]
    return [
        {"image_file": path.name, "text": text, "other": pictures[3].name}
        for path, text in zip(pictures, texts, strict=False)
    ]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize("has_condition", [False, True])
def test_lists(kind: str, has_condition: bool, pictures: list[Path], tmp_path: Path) -> None:
    path = tmp_path / f"data.{kind}"
    lines = [json.dumps(row) for row in rows(pictures)]
    path.write_text(
        "[" + ",\n".join(lines) + "]" if kind == "json" else "\ufeff" + "\n\n".join(lines) + "\n", encoding="utf-8"
    )
    data = DataConfig(
        source=str(path), pictures=str(pictures[0].parent), condition_column="other" if has_condition else ""
    )
    holds(open_source(data), pictures, pictures[3] if has_condition else None)


@pytest.mark.parametrize("has_condition", [False, True])
def test_folder(has_condition: bool, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    names = ["a.png", "b.png", "below/c.PNG"]
    for name, path, captions in zip(names, pictures, CAPTIONS, strict=False):
        (tmp_path / name).write_bytes(path.read_bytes())
        if captions != ("",):
            (tmp_path / name).with_suffix(".txt").write_text("\n".join(captions) + "\n\n")
        if has_condition:
            (tmp_path / name).with_suffix(".reference.png").write_bytes(pictures[3].read_bytes())
    (tmp_path / ".hidden.png").touch()
    data = DataConfig(source=str(tmp_path), condition_column="reference" if has_condition else "")
    holds(open_source(data), pictures, pictures[3] if has_condition else None)
    before = open_source(data).digest()
    (tmp_path / "a.txt").write_text("another caption")
    assert open_source(data).digest() != before


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("has_condition", [False, True])
def test_webdataset(has_condition: bool, pictures: list[Path], tmp_path: Path) -> None:
    texts = {0: ("txt", b"a cat"), 1: ("json", b'{"caption": ["a dog", "a big dog"]}')}
    for shard, indices in (("00000.tar", [0, 1]), ("00001.tar", [2])):
        with tarfile.open(tmp_path / shard, "w") as archive:
            for index in indices:
                add(archive, f"x/00{index}.png", pictures[index].read_bytes())
                if index in texts:
                    add(archive, f"x/00{index}.{texts[index][0]}", texts[index][1])
                if has_condition:
                    add(archive, f"x/00{index}.reference.png", pictures[3].read_bytes())
    condition = pictures[3] if has_condition else None
    column = "reference" if has_condition else ""
    for place in (tmp_path, tmp_path / "*.tar"):
        holds(open_source(DataConfig(source=str(place), condition_column=column)), pictures, condition)
    assert len(open_source(DataConfig(source=str(tmp_path / "00001.tar")))) == 1


@pytest.mark.parametrize("has_condition", [False, True])
def test_hugging_face_dataset(has_condition: bool, pictures: list[Path], tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "image": [path.read_bytes() for path in pictures[:3]],
        "caption": [["a cat"], ["a dog", "a big dog"], []],
        "other": [pictures[3].read_bytes()] * 3,
    }
    made = datasets.Dataset.from_dict(
        {
            **columns,
            "image": [{"bytes": b, "path": None} for b in columns["image"]],
            "other": [{"bytes": b, "path": None} for b in columns["other"]],
        }
    )
    made = made.cast_column("image", datasets.Image()).cast_column("other", datasets.Image())
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "data"))
    data = DataConfig(source=str(tmp_path / "data"), condition_column="other" if has_condition else "")
    holds(open_source(data), pictures, pictures[3] if has_condition else None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"image_file": "1.png"}\n{"image_file": \n', "line 2 of a.jsonl is not valid JSON"),
        ("a.jsonl", '{"image_file": "1.png"}\n[1]\n', "line 2 of a.jsonl is a list"),
        ("a.json", '[{"image_file": "1.png"},\n{"image_file" "2.png"}]', "a.json is not valid JSON: .* in line 2"),
        ("a.json", '{"image_file": "1.png"}', "holds a dict, not a list"),
        ("a.json", '[{"file": "1.png"}]', "sample 0 of a.json has no 'image_file' .*it has file"),
        ("a.json", "[]", "holds no samples"),
        (
            "a.tar",
            "no tar at all, but some text",
            "no shard of .* can be read; .* a.tar: .*damaged or no plain tar",
        ),
        ("a.parquet", "x", "the format of .*a.parquet is not known by its name"),
    ],
)
def test_faults_are_said_in_a_sentence(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as found:
        open_source(DataConfig(source=str(tmp_path / name)))
    print(f"\n{found.value}")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ""}, "data.source is not set"),
        ({"source": "nowhere"}, "there is no data nowhere"),
        ({"source": "{folder}/list.json", "pictures": "nowhere"}, "there is no folder nowhere: correct data.pictures"),
        (
            {"source": "{folder}/list.json", "caption_column": "title"},
            "sample 0 of list.json has no 'title' .* data.caption_column",
        ),
        ({"source": "{folder}/list.json", "format": "huggingface"}, "is no Hugging Face dataset on disk"),
        ({"source": "{folder}", "format": "webdataset"}, "there are no .tar files in"),
        ({"source": "{folder}", "format": "folder"}, "holds no samples"),
    ],
)
def test_wrong_places_are_said_in_a_sentence(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"image_file": "1.png", "text": "a"}]')
    with pytest.raises(ValueError, match=message) as found:
        open_source(DataConfig(**{key: value.format(folder=tmp_path) for key, value in changes.items()}))  # type: ignore[arg-type]
    print(f"\n{found.value}")
