"""One resumable training for every stage: AdamW, warm-up, cosine, clipping, moving average, checkpoints.

All randomness of a step comes from a generator seeded by the step, so a training that was interrupted ends as one that
was not. It is on the device of the module, whose numbers differ from those of another kind of device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from ipadapter_core.files.whole import whole

SAVE_SECONDS, SHOWN_STEPS = 60, 20  # between two checkpoints; between two looks at the loss, which a GPU waits for
Loss = Callable[[torch.Generator], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a stage is trained; the rate falls to zero by a cosine."""

    steps: int
    batch: int
    rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    average: float = 0.0  # decay of the weights' moving average, which is what stays; 0 = none
    seed: int = 0

    def rate_at(self, step: int) -> float:
        done = max(0, step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * min(1.0, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * done))


def fit(name: str, module: nn.Module, loss: Loss, recipe: Recipe, folder: Path) -> float:
    """Train a module by its loss on batches of `recipe.batch`, from `folder`'s checkpoint if there is one.

    Returns the seconds that it took in all. Interrupted, it has saved, and goes on from there when it is called again.
    """
    module.train()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    device = trained[0].device
    averages = [parameter.detach().clone() for parameter in trained]
    optimiser = torch.optim.AdamW(
        trained, lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.decay, fused=device.type == "cuda"
    )
    path, step, seconds = folder / f"{name}.pt", 0, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location=device)
        step, seconds = saved["step"], saved["seconds"]
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        averages = saved["averages"]

    began, last = time.monotonic() - seconds, time.monotonic()

    def save() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "step": step,
            "seconds": time.monotonic() - began,
            "module": module.state_dict(),
            "optimiser": optimiser.state_dict(),
            "averages": averages,
        }
        with whole(path) as part:
            torch.save(state, part)

    smooth: Tensor | None = None
    with tqdm(total=recipe.steps, initial=step, desc=name, unit="step", dynamic_ncols=True, mininterval=5) as bar:
        try:
            while step < recipe.steps:
                generator = torch.Generator(device).manual_seed(recipe.seed * 1_000_003 + step)
                for group in optimiser.param_groups:
                    group["lr"] = recipe.rate_at(step)
                value = loss(generator)
                optimiser.zero_grad()
                value.backward()
                torch.nn.utils.clip_grad_norm_(trained, recipe.clip)
                optimiser.step()
                step += 1
                if recipe.average:
                    decay = min(recipe.average, (1 + step) / (10 + step))
                    torch._foreach_lerp_(averages, [parameter.detach() for parameter in trained], 1 - decay)
                smooth = value.detach() if smooth is None else smooth.lerp(value.detach(), 0.02)
                if step % SHOWN_STEPS == 0:
                    bar.set_postfix_str(f"loss {float(smooth):.4f}", refresh=False)
                bar.update()
                if time.monotonic() - last > SAVE_SECONDS:
                    save()
                    last = time.monotonic()
        finally:
            save()
    if recipe.average:
        _copy(averages, trained)
    module.eval().requires_grad_(False)
    return time.monotonic() - began


@torch.no_grad()
def _copy(values: list[Tensor], parameters: list[nn.Parameter]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def write_weights(path: Path, module: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """A module's weights, in fp16."""
    write_tensors(path, {key: value.half().contiguous() for key, value in module.state_dict().items()}, metadata)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_bytes(save(tensors, metadata))
