"""The families that the trainer trains, by the core's names."""

from __future__ import annotations

from ipadapter_core import FAMILIES, Family
from ipadapter_core.facts.families import Training

TRAINED = tuple(reversed([name for name, family in FAMILIES.items() if family.training]))


def trained_family(name: str) -> tuple[Family, Training]:
    """A family and how a new adapter of it is shaped. Raises ValueError for one that is not trained."""
    family = FAMILIES.get(name)
    if family is None or family.training is None:
        raise ValueError(f"adapter.family = {name!r} is unknown: choose one of {', '.join(TRAINED)}")
    return family, family.training


def lora_rank(name: str, chosen: int = 0) -> int:
    """The rank of the LoRA that is trained with a family; 0: there is none. chosen: the config's, 0: as published."""
    published = trained_family(name)[1].lora_rank
    return (chosen or published) if published else 0
