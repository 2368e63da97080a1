"""Every two controls of an image prompt at once are both their formulas, on a small UNet."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from tests.support import held, layer_formulas, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
PROGRESS = (0.4, 0.7)
LATENTS = 3


@dataclass(frozen=True)
class Control:
    """inputs: of the node. said: what the formula is told. second: whether another reference is applied after it.
    window: latents in a context window. curve: a factor by progress."""

    inputs: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    curve: Callable[[float], float] | None = None
    second: bool = False
    window: int | None = None


def random_mask(count: int) -> torch.Tensor:
    return torch.rand(count, 13, 20, generator=torch.Generator().manual_seed(4))


def falling(place: float) -> float:
    return 1.2 - 0.9 * place


FRAMES = (0.3, 1.1, -0.2)
LAYERS = models.core.Layers("strong style + composition", composition=0.3)
SHARES = layer_formulas.shares("strong style + composition", 16, 0.3)
PRECISE = {"shares": layer_formulas.shares("style precise", 16), "swapped": layer_formulas.swapped("style precise", 16)}
MEAN_V, EACH = "K+mean(V) w/ C penalty", "one for each latent"
CONTROLS = {
    "a weight for each frame": Control({"weight": list(FRAMES)}, {"weight": 1.0, "frames": FRAMES}),
    "layers": Control({"layer_weights": LAYERS}, {"shares": SHARES}),
    "precise layers": Control({"layers": "style precise"}, PRECISE),
    "mask": Control({"mask": random_mask(1)}, {"mask": random_mask(1)}),
    "a mask for each latent": Control({"mask": random_mask(3)}, {"mask": random_mask(3)}),
    "range": Control({"start_percent": 0.1, "end_percent": 0.6}, curve=lambda place: float(0.1 <= place <= 0.6)),
    "curve": Control({"curve": {"points": [(0, 1.2), (1, 0.3)], "interpolation": "linear"}}, curve=falling),
    "norm average": Control({"combine": "norm average"}, {"combine": "norm average"}),
    "subtract": Control({"combine": "subtract"}, {"combine": "subtract"}),
    "a batch, one for each": Control({"combine": EACH}, {"combine": EACH}),
    "weights of pictures": Control({"picture_weights": "1.3, -0.4"}, {"picture_weights": (1.3, -0.4)}),
    "negative": Control({"negative": held.prompt(3, seed=9)}, {"negative": held.prompt(3, seed=9)}),
    "K+V": Control({"embeds_scaling": "K+V"}, {"scaling": "K+V"}),
    "K+mean(V)": Control({"embeds_scaling": MEAN_V}, {"scaling": MEAN_V}),
    "rescale": Control({"rescale": 0.7}, {"rescale": 0.7}),
    "two references": Control(second=True),
    "window": Control(window=2),
}
PAIRS = [
    (a, b)
    for a, b in itertools.combinations(CONTROLS, 2)
    if not {*CONTROLS[a].inputs} & {*CONTROLS[b].inputs} and {a, b} != {"layers", "precise layers"}
]


def windowed(model: Any, length: int) -> Any:
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    return ContextWindowsManualNode.execute(
        model, context_length=length, context_overlap=0, context_schedule="standard_static", context_stride=1,
        closed_loop=False, fuse_method="flat", dim=0, freenoise=False, cond_retain_index_list="",
        split_conds_to_windows=False, causal_window_fix=False,
    )[0]  # fmt: skip


def product(pair: tuple[Control, ...]) -> Any:
    """The model of a graph with these controls."""
    inputs: dict[str, Any] = {"weight": 0.8}
    for control in pair:
        inputs |= control.inputs
    patched = models.apply(held.model(), held.adapter(), held.prompt(2), **inputs)
    if any(control.second for control in pair):
        patched = models.apply(patched, held.adapter(), held.prompt(1, seed=5), 0.6)
    lengths = [control.window for control in pair if control.window]
    return windowed(patched, *lengths) if lengths else patched


def formula(pair: tuple[Control, ...]) -> list[Any]:
    """What they say together."""
    said: dict[str, Any] = {"weight": 0.8}
    for control in pair:
        said |= control.said
    curves = [control.curve for control in pair if control.curve]
    if curves:
        said["curve"] = lambda place: torch.tensor([curve(place) for curve in curves]).prod().item()
    second = [held.said(of=held.prompt(1, seed=5), weight=0.6)] * any(control.second for control in pair)
    return [held.said(of=held.prompt(2), **said), *second]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_pair(first: str, second: str) -> None:
    pair = CONTROLS[first], CONTROLS[second]
    progress = PROGRESS if "range" in (first, second) else PROGRESS[:1]
    calls = held.calls_of(product(pair), progress=progress, batch=LATENTS)
    assert len(calls) == len(progress) * (2 if "window" in (first, second) else 1)
    held.hold(f"\n{first} and {second}", calls, formula(pair))


@pytest.mark.parametrize("name", CONTROLS)
def test_each_of_them_acts(name: str) -> None:
    """So that a pair cannot hold because one of the two does nothing."""
    control = CONTROLS[name]
    calls = held.calls_of(product((control,)), progress=PROGRESS, batch=LATENTS)
    plain = None if name == "window" else formula((Control(),))
    held.hold(f"\n{name}", calls, formula((control,)), other=plain)
