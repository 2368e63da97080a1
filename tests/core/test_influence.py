"""How much, where and when, as values: what a curve gives at a progress, and what is refused."""

import pytest
import torch

from ipadapter_core import Curve, Influence

RAMP = Curve(((0.2, 0.0), (0.6, 1.0), (0.6, 0.5), (1.0, 0.5)))


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0.0, 0.0), (0.1, 0.0), (0.2, 0.0), (0.3, 0.25), (0.4, 0.5), (0.6, 0.5), (0.8, 0.5), (1.0, 0.5)],
)
def test_a_curve_is_linear_between_its_points_and_nothing_outside(progress, factor):
    assert RAMP.at(progress) == pytest.approx(factor)


def test_a_window_is_one_inside_and_nothing_outside():
    window = Curve.window(0.25, 0.75)
    assert [window.at(progress) for progress in (0, 0.24, 0.25, 0.5, 0.75, 0.76, 1)] == [0, 0, 1, 1, 1, 0, 0]
    assert window.is_window and Curve().is_window and not RAMP.is_window
    assert (window.start, window.end) == (0.25, 0.75)
    assert Curve.window(0, 1) == Curve()


@pytest.mark.parametrize("start, end", [(0.5, 0.5), (0.8, 0.2), (1.0, 1.0)])
def test_an_empty_window_is_nothing(start, end):
    assert Curve.window(start, end).is_zero and Influence(curve=Curve.window(start, end)).is_nothing
    assert Curve.window(start, end).at(0.5) == 0


def test_what_is_nothing_and_what_is_not():
    assert Influence(weight=0).is_nothing and Influence(roles=(0, 0)).is_nothing
    assert Influence(curve=Curve(((0, 0), (1, 0)))).is_nothing
    assert not any(
        i.is_nothing for i in (Influence(), Influence(weight=-1), Influence(roles=(0, 1)), Influence(curve=RAMP))
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Curve(((0.5, 1), (0.2, 1))), r"progress is \[0.5, 0.2\], expected ascending numbers from 0 to 1"),
        (lambda: Curve(((0, 1), (50, 1))), "expected ascending numbers from 0 to 1"),
        (lambda: Curve(((0, 1), (1, float("nan")))), "give it a number"),
        (lambda: Influence(weight=float("inf")), "weight of the image prompt is inf"),
        (lambda: Influence(layers={1: float("nan")}), "weight of the image prompt is nan"),
        (lambda: Influence(mask=torch.zeros(1, 0, 8)), r"no pixels \(shape \(1, 0, 8\)\)"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
