"""Several data sets as one, with repeats; mirrored pictures and shuffled tags, by a sample's own randomness alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.data_loading import LATENT, CountingReader, NoSource, content
from trainer.data import order
from trainer.data.batch import Item
from trainer.data.loader import Loader
from trainer.data.reader import PictureReader
from trainer.data.sets import Sets, epoch_length, repeats_of
from trainer.data.sources import describe_source, open_source
from trainer.run.same import changes
from trainer.settings.config import Config, fixed_values
from trainer.settings.load import load_config, parse_config, save_config

FIRST, SECOND = 5, 3


def write_folder(folder: Path, number: int, caption: str) -> Path:
    folder.mkdir(parents=True)
    for index in range(number):
        values = np.zeros((80, 100, 3), dtype=np.uint8)
        values[:, :50] = 20 + index  # the left half is dark
        values[:, 50:] = 200
        Image.fromarray(values).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(caption)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sets")
    return write_folder(root / "cats", FIRST, "a cat, red, big, old"), write_folder(root / "dogs", SECOND, "a dog")


def config_of(folders: tuple[Path, Path], repeats: int = 4, **data: Any) -> Config:
    sets = [
        {"source": str(folders[0])},
        {"source": str(folders[1]), "repeats": repeats, "prefix": "photo, ", "suffix": ", sharp"},
    ]
    return parse_config({"data": {"sets": sets, "resolution": 64, "min_side": 16, "workers": 0, **data}})


def test_samples_of_all_sets_come_with_their_captions(folders: tuple[Path, Path]) -> None:
    source = open_source(config_of(folders).data)
    assert isinstance(source, Sets)
    assert (len(source), epoch_length(source)) == (FIRST + SECOND, FIRST + 4 * SECOND)
    assert source.read(0).name.startswith("cats: ") and source.read(FIRST).name.startswith("dogs: ")
    assert source.captions(FIRST - 1) == ("a cat, red, big, old",)
    assert source.captions(FIRST) == source.read(FIRST).captions == ("photo, a dog, sharp",)
    with pytest.raises(IndexError):
        source.read(len(source))
    lines = describe_source(source)
    print("\n" + "\n".join(lines))
    assert "set dogs: 3 samples x 4, 70.6% of an epoch" in lines


def test_an_epoch_has_each_sample_as_often_as_its_set_says(folders: tuple[Path, Path]) -> None:
    config = config_of(folders)
    steps = 3 * (FIRST + 4 * SECOND)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, batch_size=1, steps=steps))
    source = open_source(config.data)
    names = [
        name for batch in Loader(config, source, CountingReader(8), 0, 1, LATENT).batches(0) for name in batch.names
    ]
    for epoch in range(3):
        seen = Counter(names[epoch * steps // 3 : (epoch + 1) * steps // 3])
        assert seen == {str(index): 1 if index < FIRST else 4 for index in range(8)}


def test_one_repeat_changes_no_order(folders: tuple[Path, Path]) -> None:
    config = config_of(folders, repeats=1)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=4))
    source: Any = open_source(config.data)
    assert repeats_of(source) is None
    ours, plain = (
        [content(batch) for batch in Loader(config, one, CountingReader(8), 0, 1, LATENT).batches(0)]
        for one in (source, NoSource(8))
    )
    assert ours == plain


def test_held_out_samples_are_held_out_with_all_repeats(folders: tuple[Path, Path]) -> None:
    config = config_of(folders, held_out=4)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=20))
    opened = Loader(config, open_source(config.data), CountingReader(8), 0, 1, LATENT)
    held = [name for batch in opened.held_out() for name in batch.names]
    assert len(held) == len(set(held)) == 4
    assert not set(held) & {name for batch in opened.batches(0) for name in batch.names}


def test_a_changed_set_is_another_dataset(folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = config_of(folders)
    digest = open_source(config.data).digest()
    assert digest == open_source(config_of(folders).data).digest()
    other = dataclasses.replace(config.data, sets=config.data.sets[::-1])
    assert open_source(other).digest() != digest
    prefixed = (dataclasses.replace(config.data.sets[0], prefix="x "), config.data.sets[1])
    assert open_source(dataclasses.replace(config.data, sets=prefixed)).digest() != digest
    moved = (dataclasses.replace(config.data.sets[0], source="/mnt/cats"), config.data.sets[1])
    before, settings = fixed_values(config), dataclasses.replace(config.data, sets=moved)
    assert fixed_values(dataclasses.replace(config, data=settings)) == before
    with pytest.raises(ValueError, match=r"belongs to another training: its data.sets is"):
        changes("step-1", {"fixed": before}, fixed_values(config_of(folders, repeats=2)))
    save_config(config, tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "a.json"}, r"data.source = 'a.json' and data.sets exclude each other"),
        ({"sets": [{"prefix": "x"}]}, r"data.sets\[0\] has no source"),
        ({"sets": [{"source": "x", "repeats": 0}]}, r"repeats of data.sets\[0\] = 0 should be 1 or more"),
        ({"sets": [{"source": "x", "repeat": 2}]}, r"unknown key data.sets.repeat: did you mean data.sets.repeats"),
        ({"sets": ["x"]}, r"data.sets should hold tables"),
        ({"keep_tags": 2}, r"data.keep_tags = 2 keeps tags where they are"),
        ({"flip": True, "cache": "cache"}, r"data.flip changes a picture each time it is seen, and a cache holds one"),
        ({"shuffle_tags": True, "cache": "cache"}, r"data.shuffle_tags changes a text each time"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(
    folders: tuple[Path, Path], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as found:
        config_of(folders, **data) if "sets" not in data else parse_config({"data": data})
    print(f"\n{found.value}")


def test_half_of_the_pictures_are_mirrored_with_what_the_encoder_sees(folders: tuple[Path, Path]) -> None:
    from trainer.base.encoder import encoder_facts  # known architectures alone, no weights

    config = config_of(folders, flip=True)
    reader = PictureReader(open_source(config.data), config.data, encoder_facts("ViT-H-14/laion2b_s32b_b79k"))
    mirrored = 0
    for position in range(40):
        draws = order.draws(0, 3, position)
        item = reader.read(0, draws, False)
        assert isinstance(item, Item) and item.pixels is not None and item.condition is not None
        is_mirrored = bool(item.pixels[0, 0, 0] > item.pixels[0, 0, -1])
        assert is_mirrored == (draws.flip < 0.5)
        assert is_mirrored == bool(item.condition[0, 0, 0] > item.condition[0, 0, -1])
        mirrored += is_mirrored
    print(f"\n{mirrored} of 40 mirrored")
    assert 10 < mirrored < 30
    held = reader.read(0, dataclasses.replace(order.draws(0, 3, 0), flip=1.0), False)
    assert isinstance(held, Item) and held.pixels is not None
    assert held.pixels[0, 0, 0] < held.pixels[0, 0, -1]


def test_tags_are_shuffled_but_for_the_first(folders: tuple[Path, Path]) -> None:
    config = config_of(folders, shuffle_tags=True, keep_tags=1)
    reader = PictureReader(open_source(config.data), config.data, None)
    found = [reader.read(0, order.draws(0, 5, position), False) for position in range(30)]
    captions = [item.caption for item in found if isinstance(item, Item)]
    assert captions == [item.caption for item in (reader.read(0, order.draws(0, 5, n), False) for n in range(30))]  # type: ignore[union-attr]
    assert all(caption.startswith("a cat, ") for caption in captions)
    assert {tuple(sorted(caption.split(", "))) for caption in captions} == {("a cat", "big", "old", "red")}
    assert len(set(captions)) == 6  # each order of the other three
    plain = PictureReader(open_source(config.data), dataclasses.replace(config.data, shuffle_tags=False), None)
    kept = plain.read(0, order.draws(0, 5, 0), False)
    assert isinstance(kept, Item) and kept.caption == "a cat, red, big, old"
