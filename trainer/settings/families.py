"""What the families that are trained read and hold: one table, by the core's names."""

from __future__ import annotations

from dataclasses import dataclass

from ipadapter_core.method.spec import Feature, Identity

from .config import AdapterConfig


@dataclass(frozen=True)
class Family:
    """feature: of the image encoder, None: none. num_tokens: as published, 0: one for each hidden state.

    identity: how ArcFace's is read, None: no faces. lora_rank: of the LoRA that is trained beside, 0: none.
    """

    feature: Feature | None
    num_tokens: int
    identity: Identity | None = None
    lora_rank: int = 0


FAMILIES = {
    "base": Family("pooled", 4),
    "plus": Family("penultimate", 16),
    "full-face": Family("penultimate", 0),
    "FaceID": Family(None, 4, "normed", 128),
    "FaceID plus": Family("penultimate", 4, "normed", 128),
}


def lora_rank(config: AdapterConfig) -> int:
    """The rank of the LoRA that is trained with the adapter; 0: there is none."""
    published = FAMILIES[config.family].lora_rank
    return (config.lora_rank or published) if published else 0
