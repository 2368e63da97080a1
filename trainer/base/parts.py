"""Frozen modules, each loaded when it is first used, so that what is cached is never loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Parts:
    """A base's and an image encoder's modules by name, on one device, frozen and in evaluation mode."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._loaded: dict[str, Any] = {}

    def get(self, name: str, load: Callable[[], nn.Module]) -> Any:
        """The part of this name, loaded if it is not there."""
        if name not in self._loaded:
            self._loaded[name] = load().to(self.device).eval().requires_grad_(False)
        return self._loaded[name]

    @property
    def loaded(self) -> set[str]:
        """The parts that are in memory now."""
        return set(self._loaded)

    def release(self, *names: str) -> None:
        """Forget parts; they are loaded again when used."""
        for name in names:
            self._loaded.pop(name, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
