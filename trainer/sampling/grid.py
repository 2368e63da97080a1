"""The grid that shows whether a training works: the same references, seeds and prompts every time, with scores.

One row for each reference: the reference, image only (empty text, weight 1), then every prompt at every weight.
"""

from __future__ import annotations

from functools import cached_property

from PIL import Image, ImageDraw

from ipadapter_core import Given, IPAdapter
from ipadapter_core.method.picture import on_white, square

from ..base.frozen import Frozen
from ..data.record import Reference
from ..settings.config import RunConfig
from ..step.objective import Objective
from .sample import Sampling, given_of, sample
from .scores import Scorer

MAX_CELL = 256  # pixels of a cell's side
LABEL = 14  # pixels of the line of text above a column


class Grid:
    """references: what the encoder sees, as it was read, and identities."""

    def __init__(
        self, run: RunConfig, resolution: int, frozen: Frozen, objective: Objective, references: list[Reference]
    ) -> None:
        self.run, self.resolution, self.frozen, self.objective = run, resolution, frozen, objective
        self.references = references[: run.sample_pictures]
        self.pictures = [on_white(reference.picture) for reference in self.references]

    @cached_property
    def scorer(self) -> Scorer | None:
        return Scorer(self.run.score_encoder, self.frozen.device) if self.run.score_encoder else None

    @property
    def columns(self) -> list[tuple[str, float]]:
        """Prompt and weight of each column after the reference."""
        prompts, weights = self.run.sample_prompts, self.run.sample_weights
        return [("", 1.0), *((prompt, weight) for prompt in prompts for weight in weights)]

    def make(self, adapter: IPAdapter) -> tuple[Image.Image, dict[str, float]]:
        """The grid, and its scores: clip_i of image only with the reference, clip_t of each prompt's pictures with it.

        Parts that were not in memory before are forgotten after.
        """
        parts, before = self.frozen.parts, self.frozen.parts.loaded
        given = given_of(self.references, adapter.spec, self.frozen)
        columns = [self._column(adapter, given, prompt, weight) for prompt, weight in self.columns]
        parts.release(*parts.loaded - before)
        return self._sheet(columns), self._scores(columns)

    def _column(self, adapter: IPAdapter, given: Given, prompt: str, weight: float) -> list[Image.Image]:
        settings = Sampling(steps=self.run.sample_steps, weight=weight, prompt=prompt, seed=self.run.seed)
        return sample(self.frozen, self.objective, adapter, given, settings, self.resolution)

    def _scores(self, columns: list[list[Image.Image]]) -> dict[str, float]:
        if self.scorer is None:
            return {}
        scores = {"clip_i": self.scorer.image_similarity(columns[0], self.pictures)}
        texts = [(pictures, prompt) for pictures, (prompt, _) in zip(columns, self.columns, strict=True) if prompt]
        if texts:
            found = [self.scorer.text_similarity(pictures, prompt) for pictures, prompt in texts]
            scores["clip_t"] = sum(found) / len(found)
        return scores

    def _sheet(self, columns: list[list[Image.Image]]) -> Image.Image:
        cell = min(MAX_CELL, self.resolution)
        labels = ["reference", *(f"{prompt or 'image only'}, {weight:g}" for prompt, weight in self.columns)]
        sheet = Image.new("RGB", (cell * len(labels), LABEL + cell * len(self.pictures)), "white")
        draw = ImageDraw.Draw(sheet)
        for number, (label, pictures) in enumerate(zip(labels, [self.pictures, *columns], strict=True)):
            draw.text((number * cell + 2, 1), label[: cell // 6], fill="black")
            for row, picture in enumerate(pictures):
                sheet.paste(square(picture, cell), (number * cell, LABEL + row * cell))
        return sheet
