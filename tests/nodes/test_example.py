"""Example Picture: each choice is a picture of its own, small, with its licence beside it and a row in the help."""

import itertools

import pytest
import torch

from tests.support import host

pytestmark = pytest.mark.comfy

example = host.part("nodes.forms.example")
LARGEST = 60_000  # bytes


def picture_of(name: str) -> torch.Tensor:
    return example.ExamplePicture.execute(name).args[0]


def test_each_choice_is_another_picture_of_0_to_1() -> None:
    pictures = {name: picture_of(name) for name in example.PICTURES}
    for name, picture in pictures.items():
        assert picture.shape[0] == 1
        assert picture.shape[3] == 3
        assert min(picture.shape[1:3]) >= 224, f"{name} is smaller than what an encoder sees"
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert picture.std() > 0.1
    small = {
        name: torch.nn.functional.interpolate(one.movedim(-1, 1), (32, 32), mode="area")
        for name, one in pictures.items()
    }
    for one, other in itertools.combinations(small, 2):
        assert (small[one] - small[other]).abs().mean() > 0.1, (one, other)


def test_each_file_is_small_and_has_its_licence_and_its_row_in_the_help() -> None:
    assert {path.stem for path in example.FOLDER.glob("*.webp")} == set(example.PICTURES)
    help_panel = (host.ROOT / "web" / "docs" / "ImagePromptExamplePicture.md").read_text(encoding="utf-8")
    for name in example.PICTURES:
        path = example.FOLDER / f"{name}.webp"
        assert path.stat().st_size <= LARGEST
        licence = path.with_name(f"{name}.webp.license").read_text(encoding="utf-8")
        assert "SPDX-License-Identifier: " in licence
        assert f"(../pictures/{name}.webp) | **{name}**" in help_panel
