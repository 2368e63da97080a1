"""Around a run of the sampler: image prompts become K' and V', and every forward pass gets its tensors.

`outer_sample` computes K' and V' before the base model is loaded and releases the adapters; `sampler_sample` and
`calc_cond_batch` learn which conditioning is conditional; `predict_noise` does what is due once a step; `apply_model`
lays out the tensors of one forward pass in `transformer_options`, outside of what a compiled model compiles.

Shapes: B batch of a forward pass (chunks times latents); what is in it: layout.py.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .hosts.host import Host
from .layout import IMAGES, KEY, UNKNOWN, Chunk, Grid, Layouts, ReferenceTensors, excerpt_of
from .progress import Progress
from .reference import Reference, Source
from .stacks import Role

# Names of the sampler's lists of conditionings whose chunks get the unconditional image tokens.
UNCONDITIONAL = re.compile("neg|uncond|empty")


class PreparedReference:
    """A reference in a run of the sampler: whether it acts in this step, how much, and with which K' and V'.

    heads: of a site. size: height and width of the whole latents. to_sigma: progress to sigma.
    """

    def __init__(
        self, reference: Reference, source: Source, heads: Mapping[int, int], size: Grid, to_sigma: Any
    ) -> None:
        self.source = source
        self.influence = reference.influence
        self.heads = heads
        self.size = size
        self.curve = reference.influence.curve
        self.start_sigma, self.end_sigma = (float(to_sigma(end)) for end in (self.curve.start, self.curve.end))
        self.is_active = True
        self.weight: Tensor | None = None
        self.layouts = self._layouts(None) if source.is_constant else None

    def _layouts(self, sigma: Tensor | None) -> Layouts:
        return Layouts(self.source.at(sigma), self.heads, self.influence, self.size)

    @property
    def reads_sigma(self) -> bool:
        """Whether it does not act in all steps alike."""
        return self.curve.start > 0 or self.curve.end < 1 or not self.curve.is_window

    def step(self, timestep: Tensor, sigma: float | None, progress: Progress | None) -> None:
        """What is due in a new step; nothing is computed where the reference does not act in it.

        timestep: the step's sigma for each latent, [B] on the device. sigma: the same as a number, where one is needed.
        """
        if sigma is not None:
            self.is_active = self.end_sigma <= sigma <= self.start_sigma
        if self.is_active and progress is not None and sigma is not None and not self.curve.is_window:
            factor = self.curve.at(min(max(progress(sigma), self.curve.start), self.curve.end))
            self.is_active = factor != 0
            self.weight = torch.full((1, 1, 1), factor, device=timestep.device)
        if self.is_active and not self.source.is_constant:
            self.layouts = self._layouts(timestep.flatten()[:1])

    def tensors(self, chunks: tuple[Chunk, ...], options: Mapping[str, Any], x: Tensor, shape: Any) -> ReferenceTensors:
        """What it gives a forward pass of x [B, ...]; shape: of the whole latents."""
        assert self.layouts is not None, "a step was announced before its forward passes"
        placement = self.influence.placement
        excerpt = excerpt_of(options, x.shape[0] // len(chunks), shape, placement)
        if placement.grid == "guessed":
            excerpt = replace(excerpt, size=(x.shape[-2], x.shape[-1]))
        return self.layouts.tensors(chunks, excerpt, x.device, self.weight)


@dataclass
class SamplerRun:
    """One run of the sampler: what is known of it. chunks: its conditionings by uuid; kept: what a host keeps in it."""

    latent_shape: tuple[int, ...]
    references: list[PreparedReference]
    progress: Progress | None
    chunks: dict[uuid.UUID, Chunk] = field(default_factory=dict)
    kept: dict[Any, Any] = field(default_factory=dict)

    @property
    def reads_sigma(self) -> bool:
        return any(reference.reads_sigma for reference in self.references)

    def learn(self, conditionings: Sequence[Mapping[str, Any]], role: Role) -> None:
        """Remember the role and the area of conditionings; what is known stays as it is."""
        for conditioning in conditionings:
            area = conditioning.get("area")
            self.chunks.setdefault(conditioning["uuid"], Chunk(role, None if area is None else tuple(area)))

    def tensors(self, x: Tensor, options: Mapping[str, Any]) -> dict[int, ReferenceTensors]:
        """The tensors of one forward pass by position of a reference; those that do not act now are left out."""
        chunks = tuple(self.chunks.get(key, UNKNOWN) for key in options["uuids"])
        return {
            position: reference.tensors(chunks, options, x, self.latent_shape)
            for position, reference in enumerate(self.references)
            if reference.is_active
        }


class RunHooks:
    """The references on a model, and what happens around a run of the sampler. Immutable."""

    def __init__(self, host: Host, references: tuple[Reference, ...] = ()) -> None:
        self.host = host
        self.references = references

    def outer_sample(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Before the base is loaded: K' and V' of all references that have them for the whole run."""
        guider = executor.class_obj
        model = guider.model_patcher
        to_sigma = model.get_model_object("model_sampling").percent_to_sigma
        shape = tuple(noise.shape)
        sources, heads = self.host.keys_values(self.references, model), self.host.heads(model)
        references = [
            PreparedReference(reference, source, heads, (shape[-2], shape[-1]), to_sigma)
            for reference, source in zip(self.references, sources)
        ]
        has_curve = any(not reference.curve.is_window for reference in references)
        run = SamplerRun(shape, references, Progress(to_sigma) if has_curve else None)
        guider.model_options["transformer_options"][KEY] = run
        return executor(noise, *args, **kwargs)

    def sampler_sample(
        self, executor: Any, guider: Any, sigmas: Tensor, extra_args: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Give every conditioning an id of its own, and remember its role and area.

        Areas copy a positive conditioning, its id included, into the negative list: only now are the lists final.
        """
        run: SamplerRun = extra_args["model_options"]["transformer_options"][KEY]
        named = {}
        for name, conditionings in guider.conds.items():
            named[name] = [{**conditioning, "uuid": uuid.uuid4()} for conditioning in conditionings]
            run.learn(named[name], Role.UNCONDITIONAL if UNCONDITIONAL.search(name) else Role.CONDITIONAL)
        guider.conds = named
        return executor(guider, sigmas, extra_args, *args, **kwargs)

    def predict_noise(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """What is due once a step. Its sigma is read only where a reference does not act in all steps alike."""
        run: SamplerRun = model_options["transformer_options"][KEY]
        sigma = timestep.flatten()[0].item() if run.reads_sigma else None
        for reference in run.references:
            reference.step(timestep, sigma, run.progress)
        return executor(x, timestep, model_options, *args, **kwargs)

    def calc_cond_batch(
        self,
        executor: Any,
        model: Any,
        conds: Sequence[Any],
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> Any:
        """Learn the conditionings that a guider keeps for itself: they are unconditional, and may have areas."""
        run: SamplerRun = model_options["transformer_options"][KEY]
        for conditionings in conds:
            run.learn(conditionings or (), UNKNOWN.role)
        return executor(model, conds, x, timestep, model_options)

    def apply_model(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
        transformer_options: Mapping[str, Any] = {}, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Hand a forward pass the tensors of its chunks, and its model the means to read them."""
        run: SamplerRun = transformer_options[KEY]
        options = {**transformer_options, IMAGES: run.tensors(x, transformer_options)}
        bound = self.host.bind(options, x, run.kept)
        return executor(x, t, c_concat, c_crossattn, control, bound, **kwargs)
