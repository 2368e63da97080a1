"""What each reference did in a run of the sampler: recorded by the layers' patches, kept small, for the last run alone.

Without a record on the model none of this runs: a patch looks up one key in the options and finds nothing.

Shapes: B latents of the run, n latents in a forward pass, N positions of a layer, h and w its grid, D its width.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..ipadapter_core import Site, attention_by_heads, image_share
from .layout import IMAGES, KEY, UNKNOWN, Chunk, Excerpt, excerpt_of
from .progress import Progress
from .stacks import Role

RECORD = "image_prompt_record"  # in transformer_options: what records this forward pass; its wrappers' key
RECORDING = "image_prompt_recording"  # in transformer_options: the run's
STEPS = 50  # parts of the sampling that are told apart, so that any number of steps needs no more memory
LARGEST = 64  # positions along a side of what is kept of a layer
UNET = ("down", "mid", "up")  # sections of the models whose layers look for a record
DIGESTS = 64  # runs whose latents are known again
NOTHING = (
    "nothing has been recorded: the sampler has to run with the MODEL of this Record Attention. Connect it, or let the "
    "sampler run again, with another seed if need be"
)


@dataclass
class Sum:
    """Shares that were added up: total [B, h, w], and how many at each place, count [B, h or 1, w or 1]."""

    total: Tensor
    count: Tensor


@dataclass
class Recording:
    """One run of the sampler, in conditional predictions.

    sites: of the model. shape: of the latents. sums: by index of a site, position of a reference and step, on the CPU.
    steps: a part of the sampling to the progress of its predictions. refusal: why places are missing, in a sentence.
    """

    sites: Sequence[Site]
    shape: tuple[int, ...]
    progress: Progress
    num_references: int = 0
    sums: dict[tuple[int, int, int], Sum] = field(default_factory=dict)
    steps: dict[int, set[float]] = field(default_factory=lambda: defaultdict(set))
    refusal: str = ""
    lock: Any = field(default_factory=threading.Lock)  # ComfyUI may predict on several GPUs at once

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the latents."""
        return self.shape[-2], self.shape[-1]

    @property
    def num_bytes(self) -> int:
        parts = (part for found in self.sums.values() for part in (found.total, found.count))
        return sum(part.numel() * part.element_size() for part in parts)

    def add(
        self, place: tuple[int, int, int], shares: Tensor, chunk: Chunk, excerpt: Excerpt, size: tuple[int, int]
    ) -> None:
        """Add shares [n, h, w] of a chunk of latents of a size; what sees a part of them is put at its place."""
        grid = _grid(shares, self.size, size)
        cover = torch.ones(1, 1, 1)
        if chunk.area is not None or excerpt.cut is not None:
            shares, cover = _placed(shares, chunk.area, excerpt.cut, size, self.size)
        if found := self.sums.get(place):
            grid = (found.total.shape[-2], found.total.shape[-1])
        rows = torch.tensor(excerpt.rows)
        if cover.shape[-2:] != (1, 1):
            cover = _resized(cover, grid)
        total = torch.zeros(self.shape[0], *grid).index_add_(0, rows, _resized(shares, grid))
        count = torch.zeros(self.shape[0], *cover.shape[1:]).index_add_(0, rows, cover.expand(len(rows), -1, -1))
        self.sums[place] = Sum(found.total + total, found.count + count) if found else Sum(total, count)


class Record:
    """What a sampler's last run with it gave; the nodes' socket. Filled when a run ends, emptied when one begins."""

    def __init__(self) -> None:
        self.run: Recording | None = None
        self.digests: deque[str] = deque(maxlen=DIGESTS)

    def of(self, latents: Tensor) -> Recording:
        """The recording of the run that made latents [B, C, h, w]. Raises ValueError where it is not that run's."""
        if self.run is None:
            raise ValueError(NOTHING)
        if (len(latents), *latents.shape[-2:]) != (self.run.shape[0], *self.run.size):
            raise ValueError(
                f"the record is of latents {_words(self.run.shape)}, this latent is {_words(latents.shape)}: connect "
                "the latent of the sampler that ran with the record, and give every sampler a Record Attention"
            )
        if _digest(latents) in list(self.digests)[:-1] and _digest(latents) != self.digests[-1]:
            raise ValueError(
                "this latent is of an earlier run, and the record keeps the last one: give every sampler a Record "
                "Attention of its own, or let this one run again"
            )
        return self.run


@dataclass(frozen=True)
class RecordHooks:
    """A record on a model, and what happens around a run of the sampler."""

    record: Record
    sites: Sequence[Site]

    def outer_sample(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A new recording for this run; the record has it when the run is over."""
        self.record.run = None
        guider = executor.class_obj
        to_sigma = guider.model_patcher.get_model_object("model_sampling").percent_to_sigma
        recording = Recording(self.sites, tuple(noise.shape), Progress(to_sigma))
        guider.model_options["transformer_options"][RECORDING] = recording
        latents = executor(noise, *args, **kwargs)
        self.record.run = recording
        self.record.digests.append(_digest(latents))
        return latents

    def apply_model(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
        transformer_options: Mapping[str, Any] = {}, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """One forward pass with what records it in its options."""
        watch = Pass.of(transformer_options[RECORDING], transformer_options, x)
        if watch is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        options = {**transformer_options, RECORD: watch}
        output = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        watch.finish()
        return output


class Pass:
    """Records one forward pass: the layers' shares stay on the device until it ends, then one copy brings them all."""

    def __init__(self, recording: Recording, chunks: Sequence[Chunk], excerpt: Excerpt, progress: float, x: Tensor):
        self.recording, self.chunks, self.excerpt, self.progress = recording, chunks, excerpt, progress
        self.size = (x.shape[-2], x.shape[-1])
        self.found: list[tuple[int, int, Tensor]] = []

    @classmethod
    def of(cls, recording: Recording, options: Mapping[str, Any], x: Tensor) -> Pass | None:
        """What records a forward pass of x [B, C, h, w]; None where there is nothing to record."""
        run = options.get(KEY)
        if run is None:
            return None
        recording.num_references = len(run.references)
        chunks = [run.chunks.get(key, UNKNOWN) for key in options["uuids"]]
        if all(chunk.role is not Role.CONDITIONAL for chunk in chunks):
            return None
        excerpt = excerpt_of(options, len(x) // len(chunks), recording.shape)
        refusal = _refusal(recording.shape, chunks, excerpt, options.get("context_window"), x)
        recording.refusal = recording.refusal or refusal
        return None if refusal else cls(recording, chunks, excerpt, _progress(recording, options), x)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own; what is kept is no part of a graph
    def keep(self, index: int, options: Mapping[str, Any], q: Tensor, text: Tensor) -> None:
        """The share of each reference in what site `index` attends; q, text: [B, N, D]."""
        height, width = options["activations_shape"][-2:]
        if height * width != q.shape[1]:
            self.recording.refusal = (
                f"another pack changes the positions of a layer ({q.shape[1]} in place of {height} x {width}), so that "
                "nobody knows where they are: leave that pack out to see an attention map"
            )
            return
        for position, tensors in options[IMAGES].items():
            if index in tensors.layers:
                k, v, factor, _ = tensors.image(tensors.layers[index], options, q, lambda _: (height, width))
                image = attention_by_heads(q, k, v)
                shares = image_share(image if factor is None else image * factor, text)
                kept = _resized(shares.unflatten(1, (height, width)), _bounded((height, width)))
                self.found.append((index, position, kept))

    def finish(self) -> None:
        """Bring what was found to the CPU, and add what is of conditional predictions."""
        if not self.found:
            return
        parts = torch.cat([shares.flatten() for *_, shares in self.found]).cpu()
        step = min(int(self.progress * STEPS), STEPS - 1)
        with self.recording.lock:
            self.recording.steps[step].add(self.progress)
            for (index, position, kept), part in zip(self.found, parts.split([x.numel() for *_, x in self.found])):
                for chunk, shares in zip(self.chunks, part.view(kept.shape).chunk(len(self.chunks))):
                    if chunk.role is Role.CONDITIONAL:
                        self.recording.add((index, position, step), shares, chunk, self.excerpt, self.size)


def with_record(model: Any, sites: Sequence[Site]) -> tuple[Any, Record]:
    """A clone of MODEL that is recorded while it is sampled, and the record; in place of one that is on it already.

    Raises ValueError for a kind of model whose layers do not look for a record.
    """
    if sites[0].place[0] not in UNET:
        raise ValueError(
            "attention is recorded in UNets only, and this model is another kind: leave Record Attention out"
        )
    clone, record = model.clone(), Record()
    hooks = RecordHooks(record, sites)
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, hooks.outer_sample), (WrappersMP.APPLY_MODEL, hooks.apply_model)):
        clone.remove_wrappers_with_key(kind, RECORD)
        clone.add_wrapper_with_key(kind, RECORD, wrapper)
    return clone, record


def _progress(recording: Recording, options: Mapping[str, Any]) -> float:
    return recording.progress(options["sigmas"].flatten()[0].item())


def _refusal(shape: tuple[int, ...], chunks: Sequence[Chunk], excerpt: Excerpt, window: Any, x: Tensor) -> str:
    """Why a forward pass cannot be put at its place in the latents, in a sentence, or nothing."""
    if window is not None and window.dim % len(shape) not in (0, len(shape) - 2, len(shape) - 1):
        return (
            f"an attention map cannot follow context windows along dimension {window.dim} of the latents: use windows "
            "along the batch, the height or the width"
        )
    expected = _window((shape[-2], shape[-1]), excerpt.cut)
    is_whole = all(chunk.area is None for chunk in chunks)
    if (is_whole and tuple(x.shape[-2:]) != expected) or max(excerpt.rows) >= shape[0]:
        return (
            f"another pack gives the model other latents ({_words(x.shape)}) than the sampler's ({_words(shape)}), so "
            "that nobody knows where they are: leave that pack out to see an attention map"
        )
    return ""


def _placed(
    shares: Tensor, area: tuple[int, ...] | None, cut: tuple[int, tuple[int, ...]] | None, size: tuple[int, int],
    whole: tuple[int, int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Shares of a part of the latents [n, h, w] in the whole, and where that is: [n, H, W] and [1, H, W]."""
    parts = (_resized(shares, size), torch.ones(1, *size))
    top, left = (0, 0) if area is None else area[-2:]
    placed = []
    for part in parts:
        window = torch.zeros(len(part), *_window(whole, cut))
        window[:, top : top + size[0], left : left + size[1]] = part
        if cut is not None:
            axis, indices = cut
            window = torch.zeros(len(part), *whole).index_copy_(axis, torch.tensor(indices), window)
        placed.append(window)
    return placed[0], placed[1]


def _window(whole: tuple[int, int], cut: tuple[int, tuple[int, ...]] | None) -> tuple[int, int]:
    """Height and width of what a context window sees."""
    seen = list(whole)
    if cut is not None:
        seen[cut[0]] = len(cut[1])
    return seen[0], seen[1]


def _grid(shares: Tensor, whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The grid of the whole latents in a layer that has shares [n, h, w] for a part of this size."""
    height, width = (max(1, round(all_ * kept / part)) for all_, kept, part in zip(whole, shares.shape[-2:], size))
    return _bounded((height, width))


def _bounded(grid: tuple[int, int]) -> tuple[int, int]:
    shrink = min(1.0, LARGEST / max(grid))
    return max(1, round(grid[0] * shrink)), max(1, round(grid[1] * shrink))


def _resized(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps [n, h, w] by area: means where it shrinks, the same values where it grows, so that zeros stay zeros."""
    return maps if maps.shape[-2:] == grid else F.interpolate(maps[:, None], grid, mode="area")[:, 0]


def _digest(latents: Tensor) -> str:
    """Of latents in half precision, in which some settings of ComfyUI hand them on."""
    values = latents.detach().to("cpu", torch.float16).contiguous()
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


def _words(shape: Sequence[int]) -> str:
    return f"{shape[-2]} x {shape[-1]}, {shape[0]} of them"
