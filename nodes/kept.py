"""K' and V' that stay for the next run: counted by ComfyUI's memory manager, bounded, and moved off like any model.

They are kept without the weight, by what they depend on alone, so that a changed weight computes nothing and a changed
set of layers only what is new. They end with their adapter, at once; with their image prompt, in the next run; and, the
least recently used first, where all of them are more than LIMIT.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor, nn

from .stacks import Role

log = logging.getLogger(__name__)
LIMIT = 256 * 2**20  # bytes of all K' and V' that are kept


class Block(NamedTuple):
    """K' and V' of the layers of one shape, as the adapter made them: by role, [L, P, T, D]."""

    indices: tuple[int, ...]
    k: dict[Role, Tensor]
    v: dict[Role, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(value.nbytes for part in (self.k, self.v) for value in part.values())


class KeptBlock(nn.Module):
    """A block as a module, so that a patcher moves and counts it."""

    def __init__(self, block: Block, device: torch.device) -> None:
        super().__init__()
        self.indices = block.indices
        # Not tensors of inference mode, which could not be moved outside of it.
        with torch.inference_mode(False), torch.no_grad():
            for name, part in (("k", block.k), ("v", block.v)):
                for role, value in part.items():
                    copy = torch.empty(value.shape, dtype=value.dtype, device=device).copy_(value)
                    self.register_parameter(f"{name}_{role.value}", nn.Parameter(copy, requires_grad=False))

    def block(self) -> Block:
        """Its tensors where they are now."""
        parts = ({role: getattr(self, f"{name}_{role.value}") for role in Role} for name in ("k", "v"))
        return Block(self.indices, *parts)


class ImagePromptKV(nn.Module):
    """K' and V' of one image prompt."""

    def __init__(self, blocks: Iterable[Block], device: torch.device) -> None:
        super().__init__()
        self.parts = nn.ModuleList(KeptBlock(block, device) for block in blocks)


class Entry:
    """K' and V' of one request in a patcher of their own. owners: what was encoded; state: of the adapter's weights."""

    def __init__(self, adapter: Any, state: Hashable, blocks: Iterable[Block], device: torch.device) -> None:
        self.adapter = weakref.ref(adapter, _end)
        self.state = state
        self.owners: list[weakref.ref[Tensor]] = []
        offload = comfy.model_management.unet_offload_device()
        # CoreModelPatcher is looked up at call time: dynamic VRAM rebinds it.
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            ImagePromptKV(blocks, offload), load_device=device, offload_device=offload
        )

    @property
    def nbytes(self) -> int:
        """Bytes on whatever device."""
        return sum(value.nbytes for value in self.patcher.model.parameters())

    def blocks(self) -> tuple[Block, ...]:
        """Its tensors where they are now."""
        return tuple(part.block() for part in self.patcher.model.parts)

    @property
    def is_owned(self) -> bool:
        """Whether any image prompt that it was asked for still lives."""
        return any(owner() is not None for owner in self.owners)

    def adopt(self, tensors: Iterable[Tensor | None]) -> None:
        """Let it live as long as these, too."""
        known = {id(owner()): owner for owner in self.owners if owner() is not None}
        self.owners = list((known | {id(t): weakref.ref(t) for t in tensors if t is not None}).values())


_entries: dict[Hashable, Entry] = {}  # the least recently used first
_lock = threading.RLock()


def find(key: Hashable, adapter: Any, state: Hashable) -> Entry | None:
    """What is kept under a key, if the adapter is as it was."""
    with _lock:
        entry = _entries.pop(key, None)
        if entry is None or entry.adapter() is not adapter or entry.state != state:
            return None
        _entries[key] = entry
        return entry


def keep(key: Hashable, adapter: Any, state: Hashable, blocks: Sequence[Block], device: torch.device) -> Entry | None:
    """Keep these blocks from now on; None where they alone are more than the limit."""
    size = sum(block.nbytes for block in blocks)
    with _lock:
        _entries.pop(key, None)
        if size > LIMIT:
            log.info(
                f"{size / 2**20:.0f} MiB of K' and V' of an image prompt are computed in every run: too many to keep"
            )
            return None
        while _entries and size + held() > LIMIT:
            _entries.pop(next(iter(_entries)))
        entry = _entries[key] = Entry(adapter, state, blocks, device)
        return entry


def held() -> int:
    """Bytes of all that is kept."""
    with _lock:
        return sum(entry.nbytes for entry in _entries.values())


def sweep(asked: Iterable[Hashable]) -> None:
    """End what nobody can ask for again: image prompts that are gone, but for these keys."""
    with _lock:
        wanted = set(asked)
        for key in [key for key, entry in _entries.items() if not entry.is_owned and key not in wanted]:
            del _entries[key]


def clear() -> None:
    """Keep nothing."""
    with _lock:
        _entries.clear()


atexit.register(clear)  # while all that ends a model is still there


def load(entries: Iterable[Entry]) -> None:
    """Bring them to their device through the memory manager, where they are not there already."""
    loaded = {id(found.model) for found in comfy.model_management.current_loaded_models}
    missing = [
        entry.patcher for entry in entries
        if id(entry.patcher) not in loaded or entry.patcher.loaded_size() < entry.patcher.model_size()
    ]  # fmt: skip
    if missing:
        comfy.model_management.load_models_gpu(missing)


def _end(adapter: Any) -> None:
    """An adapter is gone, and with it all that it made."""
    with _lock:
        for key in [key for key, entry in _entries.items() if entry.adapter is adapter]:
            del _entries[key]
