"""What people feed the controls by mistake: one clear sentence each, before anything is sampled."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.support import held, host, models
from tests.support.refusals import refusal

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
ApplyAdapter = host.part("nodes.forms.apply").ApplyAdapter
LayerWeights = host.part("nodes.forms.layers").LayerWeightsNode
FrameWeights = host.part("nodes.forms.frames").FrameWeights
NAN = float("nan")


def apply(pictures: int = 1, **inputs: Any) -> Any:
    """The node Apply, as a graph calls it: nothing runs yet."""
    return ApplyAdapter.execute(held.model(), held.adapter(), held.prompt(pictures), **inputs).result[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1", ["1 weight", "2 pictures"]),
        ("1, 2, 3", ["3 weights", "2 pictures"]),
        ("1, big", ["'1, big'", "number"]),
        ("1, nan", ["'1, nan'", "number"]),
        ("inf, 1", ["number"]),
        ("1; 2", ["'1; 2'", "number"]),
    ],
)
def test_weights_of_pictures(text: str, words: list[str]) -> None:
    with refusal("weight", *words):
        apply(2, picture_weights=text)


@pytest.mark.parametrize("combine", ["average", "norm average"])
def test_weights_of_pictures_without_a_mean(combine: str) -> None:
    with refusal("sum to 0", "change"):
        apply(2, picture_weights="1, -1", combine=combine)


@pytest.mark.parametrize("text", ["1, 0.5", "1, 0.5,", " 1 ,\n0.5 "])
def test_weights_of_pictures_that_are_fine(text: str) -> None:
    held.hold("\n", held.calls_of(apply(2, picture_weights=text)),
              [held.said(of=held.prompt(2), picture_weights=(1, 0.5))])  # fmt: skip


LINEAR = {"points": [(0, 1), (1, 0)], "interpolation": "linear"}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"curve": LINEAR, "curve_values": [1.0, 0.0]}, ["both", "curve_values", "disconnect"]),
        ({"curve_values": []}, ["no numbers", "at least one"]),
        ({"curve_values": [1.0, NAN]}, ["nan", "number"]),
        ({"curve_values": ["high"]}, ["high", "number"]),
        ({"curve_values": [None, 1.0]}, ["None", "number"]),
        ({"curve": {"points": [(0, 1), (1, NAN)]}}, ["number"]),
        ({"curve": {"points": []}}, ["point"]),
    ],
)
def test_curves(inputs: dict[str, Any], words: list[str]) -> None:
    with refusal(*words):
        apply(**inputs)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ([], ["empty list", "number"]),
        (NAN, ["nan", "finite"]),
        (math.inf, ["inf", "finite"]),
        ([0.5, NAN], ["nan", "finite"]),
        ([NAN, NAN], ["nan", "finite"]),
        (["much", 1.0], ["much", "number"]),
        ([None], ["None", "number"]),
    ],
)
def test_weights(weight: Any, words: list[str]) -> None:
    with refusal("weight", *words):
        apply(weight=weight)


@pytest.mark.parametrize("rescale", [-0.01, 1.5, NAN])
def test_rescale(rescale: float) -> None:
    with refusal("rescale", str(rescale), "0", "1"):
        apply(rescale=rescale)


def test_a_scaling_that_is_none() -> None:
    with refusal("'V'", "V only", "K+V"):
        apply(embeds_scaling="V")


def test_a_negative_of_another_encoder() -> None:
    with refusal("1024", "768"):
        apply(negative=models.Features(torch.randn(1, 768), torch.randn(1, 3, 1024)))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("3", "'3'"), ("3: ", "'3:'"), (": 1", "': 1'"), ("3: much", "'3: much'"), ("3: nan", "'3: nan'"),
        ("3: inf", "'3: inf'"), ("left: 1", "'left: 1'"), ("1: 1, 2 = 1", "'2 = 1'"), ("-1: 1", "'-1: 1'"),
        ("5-3: 1", "'5-3: 1'"), ("0-99999999999: 1", "'0-99999999999: 1'"), ("1.5: 1", "'1.5: 1'"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_read(text: str, part: str) -> None:
    with refusal("layer weights", part, "cannot be read", "as in"):
        LayerWeights.execute("all", 1.0, 1.0, text)


@pytest.mark.parametrize("text", ["16: 1", "0: 1, 10-20: 1"])
def test_layers_that_the_model_does_not_have(text: str) -> None:
    with refusal("layer weights", "16", "0 to 15"):
        apply(layer_weights=LayerWeights.execute("all", 1.0, 1.0, text).result[0])


@pytest.mark.parametrize(("composition", "boost"), [(NAN, 1.0), (1.0, math.inf)])
def test_factors_of_layers(composition: float, boost: float) -> None:
    with refusal("layers", "finite"):
        LayerWeights.execute("style + composition", composition, boost, "")


def test_a_preset_that_is_none() -> None:
    with refusal("'styel'", "style", "choose"):
        apply(layers="styel")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no keyframes", "0: 1"]), (" ,\n; ", ["no keyframes"]), ("3", ["'3'", "cannot be read"]),
        ("a: 1", ["'a: 1'", "cannot be read"]), ("0: much", ["'0: much'"]), ("0: nan", ["'0: nan'"]),
        ("0: 1, 5: inf", ["'5: inf'"]), ("1.5: 1", ["'1.5: 1'"]), (": 1", ["': 1'"]),
    ],
)  # fmt: skip
def test_keyframes(text: str, words: list[str]) -> None:
    with refusal("keyframes", *words):
        FrameWeights.execute(text, 4, "linear")


def test_an_easing_that_is_none() -> None:
    with refusal("'bounce'", "linear", "hold"):
        FrameWeights.execute("0: 1", 4, "bounce")
