"""The held-out loss, and what it is without the picture and with another one: the proof that the picture is used.

All three are at the same noise, times and texts. An adapter that has learned its pictures predicts best with the right
one: `matched` beats "no picture" and the picture of another sample.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from ipadapter_core import Given, IPAdapter, nothing

from ..base.processor import AttentionNorms
from ..data.batch import Batch
from ..step.adapter import adapter_output
from ..step.inputs import Inputs
from ..step.step import Step, losses

logger = logging.getLogger(__name__)

# Sums over the samples: loss with the right picture, with none, with another's; the samples, and those with another's.
MATCHED, NO_IMAGE, SHUFFLED, COUNT, COUNT_SHUFFLED, OF_LAYER = 0, 1, 2, 3, 4, 5
PATIENCE = 5  # validations in a row without a gain until it is said


@dataclass(frozen=True)
class Validation:
    """Mean losses of the held-out samples. ratios: by layer, |image attention| / |text attention|, weight 1.

    shuffled: nan where there was no other sample.
    """

    loss: float
    no_image: float
    shuffled: float
    ratios: dict[int, float]

    @property
    def is_better_with_its_picture(self) -> bool:
        return not (self.loss >= self.no_image or self.loss >= self.shuffled)

    def numbers(self) -> dict[str, float]:
        """As they are logged."""
        found = {
            "held_out_loss": self.loss,
            "held_out_loss/no_image": self.no_image,
            "held_out_loss/shuffled": self.shuffled,
        }
        found = {name: value for name, value in found.items() if not math.isnan(value)}
        if self.ratios:
            found["attention_ratio"] = median(self.ratios.values())
        return found | {f"attention_ratio/layer_{index:03d}": ratio for index, ratio in self.ratios.items()}


@torch.no_grad()
def held_out_sums(step: Step, adapter: IPAdapter, batches: Iterable[Batch]) -> Tensor:
    """The sums of one process's batches, in the order above, then of each layer those of text and image: fp64, CPU.

    Another's picture is that of the sample before it, so that it needs no second reading.
    """
    frozen, layers = step.frozen, adapter.spec.layers
    sums, norms, before = torch.zeros(OF_LAYER, dtype=torch.float64), AttentionNorms(), None
    for batch in batches:
        inputs = step.inputs(batch, step.objective.time_at(batch.uniform))
        given = inputs.given
        loss = partial(_losses, step, adapter, inputs)
        frozen.base.count_attention(norms)
        sums[MATCHED] += loss(given).sum()
        frozen.base.count_attention(None)
        sums[NO_IMAGE] += loss(nothing(adapter.spec, given, frozen.zero_states).expanded(given.rows)).sum()
        others = loss(_moved_on(given, before))
        has_other = torch.ones(len(others), dtype=torch.float64)
        has_other[0] = float(before is not None or len(others) > 1)
        sums[SHUFFLED] += (others * has_other).sum()
        sums[COUNT] += len(others)
        sums[COUNT_SHUFFLED] += has_other.sum()
        before = _row(given, -1)
        frozen.base.forget()
    of_layers = [norms.text.get(layer, 0) for layer in layers] + [norms.image.get(layer, 0) for layer in layers]
    sums = torch.cat([sums, torch.tensor([float(value) for value in of_layers], dtype=torch.float64)])
    return sums.float() if frozen.device.type == "mps" else sums  # which has no fp64 to sum them in


def _losses(step: Step, adapter: IPAdapter, inputs: Inputs, given: Given) -> Tensor:
    """The losses [B] of a batch with these pictures in place of its own: fp64, on the CPU."""
    images = adapter_output(adapter, given)
    return losses(step.frozen.base, step.objective, inputs, images).cpu().double()


def validation_of(sums: Tensor, layers: Iterable[int]) -> Validation:
    """The means of `held_out_sums`, summed over all processes."""
    values, layers = sums.tolist(), list(layers)
    text, image = values[OF_LAYER : OF_LAYER + len(layers)], values[OF_LAYER + len(layers) :]
    return Validation(
        loss=_mean(values[MATCHED], values[COUNT]),
        no_image=_mean(values[NO_IMAGE], values[COUNT]),
        shuffled=_mean(values[SHUFFLED], values[COUNT_SHUFFLED]),
        ratios={layer: (i / t) ** 0.5 for layer, t, i in zip(layers, text, image, strict=True) if t},
    )


class Proof:
    """Says it, once, when an adapter has been no better with the right picture for several validations in a row."""

    def __init__(self) -> None:
        self.without = 0

    def add(self, found: Validation) -> None:
        self.without = 0 if found.is_better_with_its_picture else self.without + 1
        if self.without == PATIENCE:
            logger.warning(
                "in %d validations in a row the right picture has predicted no better than none (%.4f) or another "
                "sample's (%.4f): %.4f. The adapter has not learned its pictures yet; if that stays so, look at "
                "data.condition_column, the drops and the learning rate",
                PATIENCE, found.no_image, found.shuffled, found.loss,
            )  # fmt: skip


def _moved_on(given: Given, before: Given | None) -> Given:
    """Every sample with what the one before it is given; the first with `before`, else with the last."""
    rows = [index - 1 for index in range(given.rows)]
    moved = Given(*(value if value is None else value[rows] for value in given))
    return moved if before is None else before.joined(_row(moved, slice(1, None)))


def _row(given: Given, row: int | slice) -> Given:
    """Rows of what is given; a number keeps its dimension."""
    index = [row] if isinstance(row, int) else row
    return Given(*(value if value is None else value[index] for value in given))


def _mean(total: float, count: float) -> float:
    return total / count if count else math.nan
