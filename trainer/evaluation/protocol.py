"""The protocol of a table as values, by default that of the paper's Table 1, and the paper's own rows.

Two tables may be laid side by side only where their protocols are the same: `differences` says where they are not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

CLIP_SCORE = 2.5  # CLIPScore is this times a cosine that is not negative (arXiv 2104.08718, w = 2.5)
JUDGE = "ViT-L-14-quickgelu/openai"


@dataclass(frozen=True)
class Protocol:
    """What shapes the figures beside systems, judges and data.

    samples: pictures of each reference. caption: which of a picture's captions counts, by their ids, 0 the first.
    limit: the first so many references by id, 0 = all. batch: references whose pictures are made at once; a picture
    depends on it in the last bits. resolution: 0 = each adapter's own. text_*: pictures with a text, at each weight;
    "{caption}" in a prompt is the reference's caption. resamples, covered: of the bootstrap over references.
    """

    samples: int = 4
    sampler: str = "DDIM"
    steps: int = 50
    guidance: float = 7.5
    weight: float = 1.0
    prompt: str = ""
    negative: str = ""
    seed: int = 0
    resolution: int = 0
    precision: str = "fp32"
    batch: int = 1
    caption: int = 0
    limit: int = 0
    text_prompts: tuple[str, ...] = ()
    text_weights: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    text_references: int = 500
    text_samples: int = 1
    resamples: int = 2000
    covered: float = 0.95

    def __post_init__(self) -> None:
        """Raises ValueError for a number that no table can be made with."""
        for name in ("samples", "steps", "batch", "text_samples", "text_references"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if self.resamples < 100 or not 0 < self.covered < 1:
            raise ValueError(
                f"an interval of {self.covered} from {self.resamples} resamples says nothing: give at least 100 "
                "resamples, and a share between 0 and 1"
            )
        if self.limit < 0 or self.caption < 0:
            raise ValueError(f"limit is {self.limit} and caption {self.caption}: neither can be below 0")

    def values(self) -> dict[str, Any]:
        """By name, as JSON holds them."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


class PaperRow(NamedTuple):
    """A row of the paper's Table 1. clip_score: its CLIP-T, 2.5 times the cosine. clip_i: a cosine."""

    name: str
    parameters: str
    clip_score: float
    clip_i: float


PAPER = (
    PaperRow("Open unCLIP", "893M", 0.608, 0.858),
    PaperRow("Kandinsky 2.1", "1229M", 0.599, 0.855),
    PaperRow("Versatile Diffusion", "860M", 0.587, 0.830),
    PaperRow("SD Image Variations", "860M", 0.548, 0.760),
    PaperRow("SD unCLIP", "870M", 0.584, 0.810),
    PaperRow("Uni-ControlNet (global)", "47M", 0.506, 0.736),
    PaperRow("T2I-Adapter (style)", "39M", 0.485, 0.648),
    PaperRow("ControlNet Shuffle", "361M", 0.421, 0.616),
    PaperRow("IP-Adapter", "22M", 0.588, 0.828),
)
# What has to be as in the paper for its figures to stand beside ours; the rest is ours alone, or changes no mean.
PAPERS_OWN = ("samples", "sampler", "steps", "guidance", "weight", "prompt", "negative")
# What two results may differ in and be compared all the same: their image-only pictures are of one protocol
FREE = ("resamples", "covered", "batch", "precision", "text_prompts", "text_weights", "text_references", "text_samples")


def differences(one: dict[str, Any], other: dict[str, Any], but: tuple[str, ...] = ()) -> list[str]:
    """Where two protocols, as `values` gives them, are not the same: "steps 50 and 20"."""
    names = [name for name in {**one, **other} if name not in but]
    return [f"{name} {one.get(name)!r} and {other.get(name)!r}" for name in names if one.get(name) != other.get(name)]


def from_paper(values: dict[str, Any]) -> list[str]:
    """Where a protocol is not the paper's: "steps 20, the paper has 50"."""
    papers = Protocol().values()
    return [
        f"{name} {values[name]!r}, the paper's {papers[name]!r}" for name in PAPERS_OWN if values[name] != papers[name]
    ]
