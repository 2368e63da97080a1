"""How a step runs what does not change: forward and backward of the frozen base, between K', V' and their gradients.

plain: launched operation by operation. graph: captured once for each shape as a CUDA graph, whose replay is one launch;
at small batches a GPU otherwise waits for the launches. compiled: transformer and ResNet blocks by torch.compile, in a
graph too. The adapter, its optimiser and what processes exchange stay outside, so DDP, DeepSpeed, accumulation, LoRA
and any optimiser work the same with each: what is handed on is K', V' and their gradients.

Shapes: B batch, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.processor import AdapterOutput
from ..base.protocol import FrozenBase
from ..settings.config import Config
from .objective import Objective
from .phases import BACKWARD, FORWARD, phase

CONDITIONING = "conditioning "  # before the names of the base's own
WARM_UP = 3  # runs before a capture: what libraries choose and allocate at first must not be captured

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Kind = Literal["plain", "graph", "compiled"]


class Found(NamedTuple):
    """Of one pass: the losses of each sample, [B], weighted and plain, and the gradients of what the adapter gave.

    The gradients are those of the mean weighted loss times the scale. A graph's are overwritten by its next pass.
    """

    weighted: Tensor
    plain: Tensor
    gradients: tuple[Tensor, ...]


class Engine(Protocol):
    def __call__(self, inputs: Mapping[str, Tensor], images: Sequence[Tensor]) -> Found:
        """inputs: x0, noise, time, scale and the conditioning, by name. images: what the adapter gives, flat."""
        ...


def base_losses(
    base: FrozenBase,
    objective: Objective,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    conditioning: dict[str, Tensor],
    image: AdapterOutput,
) -> Tensor:
    """|target - prediction|^2 of each sample, mean over C, h, w: [B], fp32 (eq. 6). x0, noise: [B, C, h, w]; t: [B]."""
    prediction = base.denoise(objective.noisy(x0, noise, t), t, conditioning, image)
    target = objective.target(x0, noise, t)
    return F.mse_loss(prediction.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))


class Plain:
    """The pass itself. by_layer: from the adapter's flat tensors to what the base takes."""

    def __init__(
        self, base: FrozenBase, objective: Objective, by_layer: Callable[[tuple[Tensor, ...]], AdapterOutput]
    ) -> None:
        self.base, self.objective, self.by_layer = base, objective, by_layer

    def __call__(self, inputs: Mapping[str, Tensor], images: Sequence[Tensor]) -> Found:
        leaves = tuple(image.detach().requires_grad_() for image in images)
        t = inputs["time"]
        conditioning = {
            name.removeprefix(CONDITIONING): value for name, value in inputs.items() if name.startswith(CONDITIONING)
        }
        with phase(FORWARD):
            plain = base_losses(
                self.base, self.objective, inputs["x0"], inputs["noise"], t, conditioning, self.by_layer(leaves)
            )
            weighted = plain * self.objective.weight(t)
            loss = weighted.mean() * inputs["scale"]
        with phase(BACKWARD):
            gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        self.base.forget()
        return Found(weighted.detach(), plain.detach(), gradients)


class Graph:
    """A pass on buffers of its own, one set for each shape of its inputs; captured on CUDA, run again elsewhere."""

    def __init__(self, run: Engine) -> None:
        self.run = run
        self.made: dict[Any, tuple[list[Tensor], Callable[[], object], Found]] = {}

    def __call__(self, inputs: Mapping[str, Tensor], images: Sequence[Tensor]) -> Found:
        images = [image.detach() for image in images]
        given = [*inputs.values(), *images]
        key = (tuple(inputs), tuple((value.shape, value.dtype) for value in given))
        if key not in self.made:
            self.made[key] = self._made(inputs, images)
        buffers, replay, found = self.made[key]
        for buffer, value in zip(buffers, given, strict=True):
            buffer.copy_(value)
        replay()
        return found

    def _made(self, inputs: Mapping[str, Tensor], images: Sequence[Tensor]) -> Any:
        began = time.perf_counter()
        held, kept = {name: value.clone() for name, value in inputs.items()}, [image.clone() for image in images]
        made = captured(lambda: self.run(held, kept)) if images[0].is_cuda else self._again(held, kept)
        logger.info("the step's graph took %.1f s to make", time.perf_counter() - began)
        return [*held.values(), *kept], *made

    def _again(self, inputs: Mapping[str, Tensor], images: Sequence[Tensor]) -> tuple[Callable[[], object], Found]:
        found = self.run(inputs, images)

        def replay() -> None:
            new = self.run(inputs, images)
            pairs = zip((*found[:2], *found.gradients), (*new[:2], *new.gradients), strict=True)
            for old, value in pairs:
                old.copy_(value)

        return replay, found


def captured(run: Callable[[], Result]) -> tuple[Callable[[], object], Result]:
    """A CUDA graph of what `run` launches: what launches it again, and its result, written over by each replay."""
    side, here = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run()
    here.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # other threads go on: those of the loader pin memory, which ends a capture that is not of this thread alone
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = run()
    return graph.replay, found


def choose_engine(config: Config, device: torch.device, has_lora: bool) -> tuple[Kind, str]:
    """How passes are run, and a sentence that says it and why."""
    wanted = config.run.engine
    if wanted == "plain":
        return "plain", "engine: plain"
    reason = _not_in_a_graph(config, device)
    if reason:
        return "plain", f"engine: plain, since {reason}"
    if wanted == "compiled":
        if has_lora:
            return "graph", "engine: a CUDA graph without compiling, since the base's LoRA changes with every step"
        if importlib.util.find_spec("triton") is None:
            return "graph", "engine: a CUDA graph without compiling, which needs triton: pip install triton"
        return "compiled", "engine: compiled blocks in a CUDA graph; the first step compiles, which takes minutes"
    return "graph", "engine: a CUDA graph" + (
        "; long trainings gain more by run.engine = compiled" if wanted == "auto" else ""
    )


def _not_in_a_graph(config: Config, device: torch.device) -> str:
    if device.type != "cuda":
        return f"CUDA graphs need a CUDA GPU and this device is {device.type}"
    if config.run.gradient_checkpointing:
        return "run.gradient_checkpointing computes again in backward, which a CUDA graph cannot hold"
    return ""


def build_engine(kind: Kind, run: Plain) -> Engine:
    """The engine of this kind for a pass."""
    if kind == "plain":
        return run
    if kind == "compiled":
        run.base.compile()
    return Graph(run)
