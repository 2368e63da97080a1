"""What makes a host wait for its device, counted on any device by the operations that do it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts reading a number, and results whose size depends on values."""

    NAMES = ("_local_scalar_dense", "nonzero", "item", "equal", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.NAMES:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))
