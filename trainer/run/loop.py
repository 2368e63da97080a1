"""The training loop: batches in, checkpoints, log and pictures out.

What a step does is the same whatever the number of processes and batches it is split into: every sample's randomness is
made from (run.seed, step, position in the step), and losses are means over the whole step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from ipadapter_core import IPAdapter

from ..base.device import DTYPES
from ..base.frozen import Frozen
from ..data.loader import Loader, open_loader
from ..data.sources import describe_source
from ..settings.config import Config, fixed_values
from ..step.adapter import load_adapter, metadata, new_adapter
from ..step.ema import Ema
from ..step.objective import build_objective
from ..step.schedule import learning_rate
from ..step.shape import encoder_shape
from ..step.step import Step
from ..step.transport import TrainedAdapter
from . import checkpoint
from .ahead import Ahead
from .best import is_best, prune
from .folder import LOCKS, locked
from .metrics import BROKEN, STOP, Window, step_sums
from .parallel.plain import Parallel
from .parallel.start import start
from .progress import Progress
from .resume import GoingOn, choose
from .same import made_with
from .shared import OthersError, SharedError
from .show import note_held_out, note_start, open_grid, open_log, show_grid, show_report
from .spare import spared
from .stop import Stop
from .validation import Proof, held_out_sums, validation_of

logger = logging.getLogger(__name__)


def train(config: Config, run: Path, going_on: GoingOn | None = None, held: Iterable[str] = ()) -> int:
    """Train to run.steps, from the run's newest good checkpoint if it has one; returns the step reached.

    held: locks of the run's folder that the caller has taken already.
    Raises ValueError for every fault of the input, the machine or the disk, in a sentence.
    """
    parallel = start(config)
    try:
        free = [name for name in LOCKS if name not in held]
        with Stop() as stop, locked(run, free) if parallel.is_main else nullcontext():
            if parallel.is_main:
                checkpoint.clean(run)
            training = Training(config, run, parallel, stop, going_on)
            try:
                return training.go()
            finally:
                training.close()
    finally:
        parallel.close()


class Training:
    """The parts of one run, made in the order in which they can fail cheaply."""

    def __init__(
        self, config: Config, run: Path, parallel: Parallel, stop: Stop, going_on: GoingOn | None = None
    ) -> None:
        self.config, self.run, self.parallel, self.stop = config, run, parallel, stop
        self.frozen = Frozen(config.model, parallel.device, DTYPES[config.run.precision])
        self.objective = build_objective(self.frozen.base.scheduler_config(), config.optimiser)
        adapter = new_adapter(config, self.frozen.base.sites, encoder_shape(config))
        self.spec = adapter.spec
        self.loader = self._open_loader()
        self.frozen.base.install(config.adapter.attention, self.spec.has_lora, config.run.gradient_checkpointing)
        self.training_step = Step(self.frozen, self.objective, self.spec)
        parallel.prepare(TrainedAdapter(adapter))
        self.ema = Ema(parallel.trained.adapter, config.optimiser.ema) if config.optimiser.ema else None
        self.step = 0  # optimiser steps done
        self.saved = -1  # the step that was saved last
        self.ahead = Ahead(iter(()), config.optimiser.accumulation)
        self.proof = Proof()
        self.made_with: dict[str, Any] = made_with(config, self.loader.source) if parallel.is_main else {}
        self._resume(going_on or GoingOn())
        self.log = open_log(run, config, self.step) if parallel.is_main else None
        has_grid = bool(config.run.sample_every_steps) and parallel.is_main
        self.grid = open_grid(config, self.frozen, self.objective, self.loader) if has_grid else None

    def _open_loader(self) -> Loader:
        facts = self.frozen.encoder_facts if self.spec.feature else None
        parallel, shape = self.parallel, self.frozen.base.latent_shape(self.config.data.resolution)
        loader = open_loader(self.config, facts, self.spec.feature, parallel.rank, parallel.num_processes, shape)
        for line in describe_source(loader.source) if self.parallel.is_main else ():
            logger.info("%s", line)
        zero = loader.zero_features()
        if self.spec.feature == "penultimate" and zero is not None:
            self.frozen.zero_states_are(zero)
        return loader

    def _resume(self, going_on: GoingOn) -> None:
        """The first process chooses a checkpoint, so that all go on from the same; every process loads it."""
        chosen, error = None, None
        if self.parallel.is_main:
            try:
                chosen = choose(self.run, going_on, fixed_values(self.config), self.made_with)
            except ValueError as found:
                error = str(found)
        chosen, error = self.parallel.gather_objects((chosen, error))[0]
        if error:
            raise SharedError(error)
        if chosen:
            saved = checkpoint.read(chosen.path, is_checked=True)
            self.parallel.load(saved.weights, saved.state, saved.step)
            self.parallel.load_scale(saved.scale)
            if self.ema:
                self.ema.load(saved.ema)
            self.step = self.saved = saved.step
            logger.info("going on from step %d", self.step)
        if self.parallel.is_main:
            note_start(self.run, self.config, self.step, chosen, going_on, self.made_with)

    def go(self) -> int:
        """Run the remaining steps, save, and return the step reached."""
        steps = self.config.run.steps
        window = Window()
        self.ahead = Ahead(self.loader.batches(self.step), self.config.optimiser.accumulation)
        self.first = self.step + 1
        if self.step < steps:
            self.ahead.read()
            self._end_by_fault(self.ahead.fault)
        with Progress(steps, self.step, not self.parallel.is_main) as self.progress:
            window.restart()
            while self.step < steps and not self._one(window):
                pass
        if self.log:
            show_report(self.run)
        self._end_by_fault(self.ahead.fault)
        return self.step

    def _one(self, window: Window) -> bool:
        """One step and what is due after it; whether the run was asked to stop, and has saved."""
        rate = learning_rate(self.config.optimiser, self.config.run.steps, self.step)
        sums, norm, waited = self._step(rate)
        self.step += 1
        if self.ema:
            self.ema.update(self.step)
        window.add(sums, norm, waited)
        if self.step == self.first:
            self._report_state()
        self.progress.update(self.step)
        if self._is_due(self.config.run.log_every_steps):
            self._report(window, rate)
        is_asked, began = bool(sums[STOP]), time.perf_counter()
        if is_asked or self._is_due(self.config.run.save_every_steps) or self.step == self.config.run.steps:
            self.save()
        if not is_asked and self._is_due(self.config.run.validate_every_steps):
            self.validate()
        if not is_asked and self._is_due(self.config.run.sample_every_steps):
            self.sample()
        window.started += time.perf_counter() - began  # the speed is that of the training alone
        return is_asked

    def close(self) -> None:
        """End the workers and close the log's files, whatever has happened."""
        if isinstance(self.ahead.batches, Generator):
            self.ahead.batches.close()
        if self.log:
            self.log.close()

    def _is_due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _step(self, rate: float) -> tuple[Tensor, float, float]:
        """One optimiser step: the sums over all processes, the gradient's norm, the seconds waited for data."""
        total, norm, broken = None, 0.0, []
        for batch in self.ahead.take():
            found = self.training_step.train(batch, self.parallel, rate)
            norm = found.norm or 0.0
            sums = step_sums(found)
            broken += [(batch.names, found.weighted)]
            total = sums if total is None else total + sums
        assert total is not None
        asked = time.perf_counter()
        self.ahead.read()
        waited = time.perf_counter() - asked
        total[STOP] = float(self.stop.is_asked or bool(self.ahead.fault))
        total = self.parallel.sum(total).cpu()
        if total[BROKEN]:
            self._stop_broken(broken)
        return total, norm, waited

    def _end_by_fault(self, mine: str) -> None:
        """Where a process has met a fault of the data: save what is not saved yet, and end with it on all of them."""
        if not any(self.parallel.gather_objects(mine)):
            return
        if self.step > max(self.saved, 0):
            self.save()
        if not mine:
            raise OthersError("another process has met a fault of the data, and says it")
        raise ValueError(f"{mine}; saved at step {self.step}" if self.saved > 0 else mine)

    def _stop_broken(self, batches: list[tuple[Sequence[str], Tensor]]) -> None:
        mine = [
            name
            for names, losses in batches
            for name, loss in zip(names, losses.tolist(), strict=True)
            if loss != loss or abs(loss) == float("inf")
        ]
        names = [name for found in self.parallel.gather_objects(mine) for name in found]
        last = checkpoint.latest(self.run)
        raise SharedError(
            f"the loss of step {self.step + 1} is not finite for {', '.join(names[:4])}: look at that sample, or lower "
            f"the learning rate or choose bf16; the last good checkpoint is {last.name if last else 'none'}"
        )

    def _report(self, window: Window, rate: float) -> None:
        numbers = window.numbers() | {"learning_rate": rate}
        if self.log:
            self.log.numbers(self.step, numbers)
        self.progress.say(self.step, numbers)
        window.restart()

    def _report_state(self) -> None:
        sizes = self.parallel.gather_objects(self.parallel.state_bytes())
        logger.info(
            "optimiser state: %s bytes on processes 0 to %d", ", ".join(f"{size:,}" for size in sizes), len(sizes) - 1
        )

    def save(self) -> None:
        """Write a checkpoint. Raises ValueError on every process when it could not be written."""
        weights, state = self.parallel.weights(), self.parallel.state()
        error = None
        if self.parallel.is_main:
            ema = self.ema.tensors() if self.ema else {}
            saved = checkpoint.Saved(self.step, weights, state, ema, self.parallel.scale_state())
            try:
                checkpoint.write(self.run, saved, self._metadata(), fixed_values(self.config), self.made_with)
                prune(self.run, self.config.run)
            except ValueError as found:
                error = str(found)
        error = self.parallel.gather_objects(error)[0]
        if error:
            raise SharedError(error)
        self.saved = self.step
        if self.log:
            show_report(self.run)

    def _current(self) -> IPAdapter:
        """The adapter as its file would hold it now, apart from the wrapped one. Every process must call it."""
        weights = self.parallel.weights()
        tensors = self.ema.tensors() if self.ema else weights
        return load_adapter(tensors, self.frozen.base.sites, self.parallel.device, self._metadata())

    def _metadata(self) -> dict[str, str]:
        return metadata(self.spec, self.config, self.step, self.objective.prediction)

    def validate(self) -> None:
        """The held-out losses at fixed noise and evenly spread times; saved where they are the best so far."""
        if not self.config.data.held_out:
            return
        batches = Ahead(self.loader.held_out(), 1)
        sums = held_out_sums(self.training_step, self._current(), batches)
        self._end_by_fault(batches.fault)
        found = validation_of(self.parallel.sum(sums), self.spec.layers)
        is_new = self.config.run.keep_best and self.saved != self.step
        if is_new and self.parallel.gather_objects(is_best(self.run, found.loss))[0]:
            self.save()
        if self.log:
            self.log.numbers(self.step, found.numbers())
            self.progress.validated(self.step, found)
            self.proof.add(found)
            note_held_out(self.run, self.config.run, self.step, found.loss)

    def sample(self) -> None:
        """A grid of pictures at fixed seeds, and its scores, made by the first process; its faults end no training."""
        adapter = self._current()
        if self.grid and self.log:
            with spared(f"the grid of step {self.step}"):
                show_grid(self.grid, self.log, self.loader, adapter, self.step, lambda: self.stop.is_asked)
        self.parallel.wait()
