"""The grid that shows whether a training works: the same references, seeds and prompts every time, with scores.

One row for each reference: the reference, image only (empty text, weight 1), then every prompt at every weight.
"""

from __future__ import annotations

from collections.abc import Callable

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
        self.scorer = Scorer(run.score_encoder, frozen.device) if run.score_encoder else None
        self.take(references)

    def take(self, references: list[Reference]) -> None:
        """Show these references from now on."""
        self.references = references[: self.run.sample_pictures]
        self.pictures = [on_white(reference.picture) for reference in self.references]

    @property
    def columns(self) -> list[tuple[str, float]]:
        """Prompt and weight of each column after the reference."""
        prompts, weights = self.run.sample_prompts, self.run.sample_weights
        return [("", 1.0), *((prompt, weight) for prompt in prompts for weight in weights)]

    def make(self, adapter: IPAdapter, is_asked: Callable[[], bool] = lambda: False) -> Image.Image | None:
        """The grid; None when `is_asked` to stop amid it. Parts that were not in memory before are forgotten after.

        Raises ValueError when there is no reference.
        """
        if not self.references:
            raise ValueError("there is no reference that can be read")
        parts, before = self.frozen.parts, self.frozen.parts.loaded
        self.made: list[list[Image.Image]] = []
        try:
            given = given_of(self.references, adapter.spec, self.frozen)
            for prompt, weight in self.columns:
                if is_asked():
                    return None
                self.made.append(self._column(adapter, given, prompt, weight))
        finally:
            self.frozen.base.forget()
            parts.release(*parts.loaded - before)
        return self._sheet(self.made)

    def scores(self) -> dict[str, float]:
        """Of the grid made last: clip_i of image only with the reference, clip_t of each prompt's pictures with it."""
        return self._scores(self.made)

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
        labels = ["reference", *(f"{weight:g} {prompt or 'image only'}" for prompt, weight in self.columns)]
        sheet = Image.new("RGB", (cell * len(labels), LABEL + cell * len(self.pictures)), "white")
        draw = ImageDraw.Draw(sheet)
        for number, (label, pictures) in enumerate(zip(labels, [self.pictures, *columns], strict=True)):
            draw.text((number * cell + 2, 1), label[: cell // 6], fill="black")
            for row, picture in enumerate(pictures):
                sheet.paste(square(picture, cell), (number * cell, LABEL + row * cell))
        return sheet
