"""How a step is run: the graph's buffers, late numbers and the optimiser, by the code that CUDA runs, on any device."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import runs
from tests.support.waits import Waits
from trainer.base.encoder import encoder_facts
from trainer.commands.profile import run_profile
from trainer.run.loop import Training
from trainer.run.metrics import STOP
from trainer.run.parallel.start import start
from trainer.run.shared import SharedError
from trainer.run.stop import Stop
from trainer.settings.config import Config
from trainer.step.engine import Graph, Plain, choose_engine

STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


def made(config: Config, folder: Path) -> Training:
    training = Training(config, folder, start(config), Stop())
    training.begin()
    return training


def steps(training: Training, count: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    """Sums and norm of the next steps, read late: each after the next one was launched."""
    lates = []
    for _ in range(count):
        lates.append(training.launch(1e-2))
        training.step += 1
    for late in lates:
        late.wait()
    return [(late.sums, late.norm) for late in lates]


def state(training: Training) -> dict[str, Tensor]:
    return training.parallel.weights() | training.parallel.state()


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Training], None]:
    def change(training: Training) -> None:
        step = training.training_step
        training.training_step = dataclasses.replace(step, engine=Graph(step.engine))

    return change


@pytest.mark.parametrize("family", ["base", "plus"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_graph_is_plain_to_the_bit(
    family: str, accumulation: int, folder: Path, tmp_path: Path, graphed: Callable[[Training], None]
) -> None:
    config = runs.tiny_config(
        folder, adapter={"family": family}, optimiser={"accumulation": accumulation, "clip": 0.5}, run={"steps": 99}
    )
    plain, graph = made(config, tmp_path), made(config, tmp_path)
    graphed(graph)
    for (sums, norm), (other, other_norm) in zip(steps(plain), steps(graph), strict=True):
        assert torch.equal(sums, other)
        assert torch.equal(norm, other_norm)
    first, second = state(plain), state(graph)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert isinstance(graph.training_step.engine, Graph)
    assert len(graph.training_step.engine.made) == 1


def test_gradients_are_those_of_one_backward(folder: Path, tmp_path: Path) -> None:
    """Cut at K' and V' and joined again: the same as autograd through everything."""
    training = made(runs.tiny_config(folder), tmp_path)
    step, parallel = training.training_step, training.parallel
    (inputs,) = training.ahead.take()
    engine = step.engine
    assert isinstance(engine, Plain)
    adapter = parallel.trained.adapter
    from trainer.step.adapter import adapter_output
    from trainer.step.step import losses

    weight = step.objective.weight(inputs.time)
    (losses(step.frozen.base, step.objective, inputs, adapter_output(adapter, inputs.given)) * weight).mean().backward()
    wanted = {name: parameter.grad.clone() for name, parameter in adapter.named_parameters()}
    adapter.zero_grad()
    outputs = parallel.forward(inputs.given)
    found = engine(inputs.of_base() | {"scale": parallel.scale()}, outputs)
    torch.autograd.backward(outputs, found.gradients)
    for name, parameter in adapter.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, wanted[name]), name


@pytest.mark.parametrize("settings", [{}, {"clip": 0.1, "ema": 0.99, "loss_weighting": "min_snr", "noise_offset": 0.1}])
def test_a_step_waits_for_nothing(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    training = made(runs.tiny_config(folder, optimiser=settings), tmp_path)
    steps(training, 1)
    with Waits() as waits:
        steps(training, 2)
        if training.ema:
            training.ema.update(training.step)
    print(f"\nwaits in two steps: {dict(waits.found)}")
    assert not waits.found


def test_a_step_that_is_not_finite_changes_nothing(folder: Path, tmp_path: Path) -> None:
    training = made(runs.tiny_config(folder, optimiser={"ema": 0.9}), tmp_path)
    steps(training, 2)
    before, names = state(training), []
    (inputs,) = training.ahead.steps[0]
    names.append(inputs.names[1])
    noise = inputs.noise.clone()
    noise[1] = float("nan")
    training.ahead.steps[0] = [dataclasses.replace(inputs, noise=noise)]
    late = training.launch(1e-2)
    late.wait()
    after = state(training)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert late.broken == names
    with pytest.raises(SharedError, match=rf"the loss of step 3 is not finite for {names[0]}: look at that sample"):
        training._settle(late)


def test_a_fault_of_the_data_leaves_a_whole_step(folder: Path, tmp_path: Path) -> None:
    """It is met two steps before its own, and asks for a stop at once, so that all processes save together."""
    training = made(runs.tiny_config(folder), tmp_path)

    def batches() -> Iterator[Any]:
        yield next(real)
        raise ValueError("the fourth is bad")

    real, training.ahead.batches = training.ahead.batches, batches()
    asked = [bool(sums[STOP]) for sums, _ in steps(training, 3)]
    assert asked == [False, True, True]
    assert training.ahead.fault == "the fourth is bad"
    assert not training.ahead.steps


def test_blocks_compile_whole(folder: Path, tmp_path: Path) -> None:
    """No block of the base breaks apart in torch.compile, and compiled blocks give the same gradients."""
    config = runs.tiny_config(folder)
    training = made(config, tmp_path)
    (inputs,) = training.ahead.take()
    engine, parallel = training.training_step.engine, training.parallel
    outputs = [output.detach() for output in parallel.forward(inputs.given)]
    given = inputs.of_base() | {"scale": parallel.scale()}
    wanted = engine(given, outputs)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    training.frozen.base.compile(backend="eager")
    found = engine(given, outputs)
    breaks = torch._dynamo.utils.counters["graph_break"]
    stats = torch._dynamo.utils.counters["stats"]
    print(f"\n{dict(stats)}, breaks {dict(breaks)}")
    assert stats["unique_graphs"] > 0
    assert not breaks
    for one, two in zip(found.gradients, wanted.gradients, strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("wanted", "run", "has_lora", "device", "chosen", "said"),
    [
        ("auto", {}, False, "cuda", "graph", "engine: a CUDA graph; long trainings gain more by run.engine = compiled"),
        ("auto", {}, False, "cpu", "plain", "engine: plain, since CUDA graphs need a CUDA GPU and this device is cpu"),
        ("plain", {}, False, "cuda", "plain", "engine: plain"),
        ("graph", {"gradient_checkpointing": True}, False, "cuda", "plain", "engine: plain, since run.gradient_check"),
        ("compiled", {}, True, "cuda", "graph", "engine: a CUDA graph without compiling, since the base's LoRA"),
        ("compiled", {}, False, "mps", "plain", "engine: plain, since CUDA graphs need a CUDA GPU"),
    ],
)
def test_the_choice_is_said(
    wanted: str, run: dict[str, Any], has_lora: bool, device: str, chosen: str, said: str, folder: Path
) -> None:
    config = runs.tiny_config(folder, run={"engine": wanted, **run})
    assert encoder_facts(config.model.encoder)
    kind, sentence = choose_engine(config, torch.device(device), has_lora)
    assert kind == chosen
    assert sentence.startswith(said)


def test_a_profile_says_where_the_time_goes(folder: Path, tmp_path: Path) -> None:
    said = run_profile(runs.tiny_config(folder), 2, tmp_path / "profile")
    print(f"\n{said}")
    rows = {line[:30].strip(): line[30:].split() for line in said.splitlines()}
    parts = ("data", "inputs", "adapter forward", "base", "adapter backward, optimiser")
    assert all(float(rows[part][0]) > 0 for part in parts)
    assert float(rows["base"][0]) > float(rows["of it base forward"][0]) > 0
    events = json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]
    assert {"data", "base forward", "base backward"} <= {event.get("name") for event in events}
    with pytest.raises(ValueError, match=r"profile looks at one process, and run\.processes is 2: give --set"):
        run_profile(runs.tiny_config(folder, run={"processes": 2, "parallel": "ddp"}), 2, tmp_path)
