"""A place in a base model where image attention acts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """One attention layer of a base that gets K' and V'.

    index: its number in an adapter's file. place: where it is in the kind of model, e.g. ("down", 1, 0, 0) in a UNet
    (section, level, attention module, transformer block), ("double", 7) or ("single", 3) in a transformer.
    diffusers, comfyui: the module's name in either's model.
    """

    index: int
    place: tuple[str | int, ...]
    diffusers: str
    comfyui: str
