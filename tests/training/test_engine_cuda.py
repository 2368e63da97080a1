"""The engines on a GPU: the same training by each, how far they agree, and that a step waits for nothing."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support import runs
from trainer.run.loop import Training
from trainer.run.metrics import SAMPLES, WEIGHTED
from trainer.run.parallel.start import start
from trainer.run.stop import Stop
from trainer.settings.config import Config

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

STEPS = 50
ENGINES = ("plain", "graph", "compiled")


def trained(config: Config, folder: Path, steps: int) -> tuple[list[float], dict[str, Tensor], dict[str, Tensor]]:
    """Losses of the steps, the gradients of the first (as AdamW's first moments), and the weights at the end."""
    training = Training(config, folder, start(config), Stop())
    training.begin()
    losses, first, before = [], {}, None
    for _ in range(steps):
        late = training.launch(1e-3)
        training.step += 1
        if not first:
            first = {name: value for name, value in training.parallel.state().items() if name.startswith("exp_avg.")}
        if before is not None:
            before.wait()
            losses.append(float(before.sums[WEIGHTED] / before.sums[SAMPLES]))
        before = late
    late.wait()
    losses.append(float(late.sums[WEIGHTED] / late.sums[SAMPLES]))
    weights = training.parallel.weights()
    training.close()
    return losses, first, weights


def difference(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """The largest difference over the largest value."""
    largest = max(float(value.abs().max()) for value in one.values())
    return max(float((one[name] - two[name]).abs().max()) for name in one) / largest


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["base", "plus"])
def test_engines_agree(family: str, precision: str, tmp_path: Path) -> None:
    found = {}
    for engine in ENGINES:
        config = runs.tiny_config(
            tmp_path,
            adapter={"family": family},
            run={"device": "cuda", "engine": engine, "precision": precision, "steps": 99},
        )
        found[engine] = trained(config, tmp_path, STEPS)
    losses, gradients, weights = found["plain"]
    for engine in ENGINES[1:]:
        others, other_gradients, other_weights = found[engine]
        first, last = (abs(others[place] - losses[place]) / losses[place] for place in (0, -1))
        apart = difference(gradients, other_gradients)
        bits = all(torch.equal(weights[name], other_weights[name]) for name in weights)
        print(f"\n{family}, {precision}, {engine}: first loss {first:.1e}, gradients {apart:.1e}, "
              f"loss {STEPS} {last:.1e}, weights {difference(weights, other_weights):.1e}, "
              f"equal to the bit: {bits}")  # fmt: skip
        if precision == "fp32":
            assert first <= 1e-5
            assert apart <= 1e-5
            assert last <= 1e-4
        else:
            assert first <= 1e-2
            assert last <= 5e-2


@pytest.mark.parametrize("cached", [True, False])
def test_a_step_does_not_wait_for_the_gpu(cached: bool, tmp_path: Path) -> None:
    config = runs.tiny_config(
        tmp_path,
        data={"workers": 1, **({"cache": str(tmp_path / "cache")} if cached else {})},
        optimiser={"clip": 0.5, "ema": 0.99},
        run={"device": "cuda", "engine": "graph", "precision": "bf16", "steps": 99},
    )
    if cached:
        from trainer.commands.cache import build_cache

        build_cache(config)
    training = Training(config, tmp_path, start(config), Stop())
    training.begin()
    for _ in range(3):
        training.launch(1e-3).wait()
        training.step += 1
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        lates = []
        for _ in range(3):
            lates.append(training.launch(1e-3))
            training.step += 1
            assert training.ema
            training.ema.update(training.step)
        torch.cuda.set_sync_debug_mode("default")
    lates[-1].wait()
    training.close()
    places = [f"{one.filename}:{one.lineno}" for one in found if "synchroniz" in str(one.message)]
    said = [place for place in places if "torch/cuda/__init__" not in place]  # that is the switch of the mode itself
    print(f"\ncached: {cached}, synchronisations in three steps: {said}")
    assert not said
