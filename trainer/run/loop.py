"""The training loop: batches in, checkpoints, log and pictures out.

What a step does is the same whatever the number of processes and batches it is split into: every sample's randomness is
made from (run.seed, step, position in the step), and losses are means over the whole step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ipadapter_core import IPAdapter

from ..base.device import DTYPES, use_tf32
from ..base.frozen import Frozen
from ..settings.config import Config, fixed_values
from ..step.adapter import load_adapter, metadata, new_adapter
from ..step.ema import Ema
from ..step.objective import build_objective
from ..step.schedule import learning_rate
from ..step.shape import encoder_shape
from ..step.transport import TrainedAdapter
from . import checkpoint
from .ahead import Ahead
from .best import is_best, prune
from .folder import LOCKS, locked
from .late import Late
from .metrics import STOP, Window, step_sums
from .parallel.plain import Parallel
from .parallel.start import start
from .parts import make_loader, make_step
from .progress import Progress
from .resume import GoingOn, choose
from .same import made_with
from .shared import OthersError, SharedError
from .show import left_out, note_held_out, note_start, open_grid, open_log, show_grid, show_report, show_sizes
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
        use_tf32(parallel.device, config.run.precision)
        self.frozen = Frozen(config.model, parallel.device, DTYPES[config.run.precision])
        self.objective = build_objective(self.frozen.base.scheduler_config(), config.optimiser)
        adapter = new_adapter(config, self.frozen.base.sites, encoder_shape(config))
        self.spec = adapter.spec
        self.loader = make_loader(config, self.frozen, self.spec, parallel)
        self.frozen.base.install(config.adapter.attention, self.spec.has_lora, config.run.gradient_checkpointing)
        parallel.prepare(TrainedAdapter(adapter))
        self.training_step, self.engine = make_step(config, self.frozen, self.objective, self.spec, parallel)
        self.ema = Ema(parallel.trained.adapter, config.optimiser.ema) if config.optimiser.ema else None
        self.step = 0  # optimiser steps done
        self.saved = -1  # the step that was saved last
        self.ahead = Ahead(iter(()), 1, self.training_step.inputs, parallel.device)
        self.late: Late | None = None  # the last step's numbers, on their way
        self.proof = Proof()
        self.made_with: dict[str, Any] = made_with(config, self.loader.source) if parallel.is_main else {}
        self._resume(going_on or GoingOn())
        self.log = open_log(run, config, self.step) if parallel.is_main else None
        has_grid = bool(config.run.sample_every_steps) and parallel.is_main
        self.grid = open_grid(config, self.frozen, self.objective, self.loader) if has_grid else None

    def eager(self) -> AbstractContextManager[Any]:
        """Around what has shapes that come now and then: they are not compiled for."""
        return torch.compiler.set_stance("force_eager") if self.engine == "compiled" else nullcontext()

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
        self.begin()
        last = self.ahead.last_step(self.step, self.config.run.steps, self.parallel)
        self.first = self.step + 1
        with Progress(self.config.run.steps, self.step, not self.parallel.is_main) as self.progress:
            self._show(*left_out(self.run, self.step, self.parallel))  # what a stop or a kill has left out
            self.window.restart(time.perf_counter())
            while self.step < last and not self._one():
                pass
            self._settle(self.late)  # of a step before a fault of the data: all is read before it is saved
        if self.log:
            show_report(self.run)
        self._end_by_fault(self.ahead.fault)
        return self.step

    def begin(self) -> None:
        """Read the next steps' batches."""
        self.window = Window()
        batches, count = self.loader.batches(self.step), self.config.optimiser.accumulation
        self.ahead = Ahead(batches, count, self.training_step.inputs, self.parallel.device)
        self.ahead.fill()

    def _one(self) -> bool:
        """One step and what is due after it; whether the run was asked to stop, and has saved.

        The step before is read while this one runs, and this one too where something is due that needs it. Several
        processes agree on a stop by these numbers, one needs none.
        """
        run = self.config.run
        before, self.late = self.late, self.launch(learning_rate(self.config.optimiser, run.steps, self.step))
        self.step += 1
        if self.ema:
            self.ema.update(self.step)
        is_asked = self._settle(before) or (self.stop.is_asked and self.parallel.num_processes == 1)
        if self.step == self.first:
            show_sizes(self.parallel)
        self.progress.update(self.step)
        saves = self._is_due(run.save_every_steps) or self.step == run.steps
        is_due = saves or self._is_due(run.validate_every_steps) or self._is_due(run.sample_every_steps)
        if is_asked or is_due:
            is_asked = self._settle(self.late) or is_asked
            self.late = None
        began = time.perf_counter()
        if is_asked or saves:
            self.save()
        if is_due and not is_asked:
            self._show()
            # what is due may take long: a stop that was asked for amid it does not wait for another step
            is_asked = any(self.parallel.gather_objects(self.stop.is_asked))
            if is_asked and self.saved != self.step:
                self.save()
        self.window.started += time.perf_counter() - began  # the speed is that of the training alone
        return is_asked

    def _show(self, validates: bool = True, samples: bool = True) -> None:
        """The validation and the grid, where they are wanted and due."""
        if validates and self._is_due(self.config.run.validate_every_steps):
            self.validate()
        if samples and self._is_due(self.config.run.sample_every_steps):
            self.sample()

    def close(self) -> None:
        """End the workers and close the log's files, whatever has happened."""
        self.ahead.close()
        if self.log:
            self.log.close()

    def _is_due(self, every: int) -> bool:
        return bool(every) and self.step > 0 and self.step % every == 0

    def launch(self, rate: float) -> Late:
        """One optimiser step: its numbers, of all processes, which are read later."""
        names: list[str] = []
        total, losses = None, []
        for inputs in self.ahead.take():
            found = self.training_step.train(inputs, self.parallel, rate)
            sums = step_sums(found)
            total = sums if total is None else total + sums
            losses.append(found.weighted.clone())  # the next batch may be written over it
            names += inputs.names
        assert total is not None and found.norm is not None
        waited = self.ahead.fill()
        # filled there: an assignment would copy, and wait
        total[STOP].fill_(float(self.stop.is_asked or bool(self.ahead.fault)))
        return Late(self.step + 1, rate, waited, names, self.parallel.sum(total), found.norm, torch.cat(losses))

    def _settle(self, late: Late | None) -> bool:
        """Read a step's numbers; whether a stop was asked for at it. Raises SharedError when it is not finite."""
        if late is None:
            return False
        late.wait()
        if late.is_broken(self.config.run.precision):
            names = [name for found in self.parallel.gather_objects(late.broken) for name in found]
            last = checkpoint.latest(self.run)
            raise SharedError(late.sentence(names, last.name if last else "none"))
        self.window.add(late.sums, float(late.norm), late.waited)
        every = self.config.run.log_every_steps
        if every and late.step % every == 0:
            self._report(late)
        return bool(late.sums[STOP])

    def _end_by_fault(self, mine: str) -> None:
        """Where a process has met a fault of the data: save what is not saved yet, and end with it on all of them."""
        if not any(self.parallel.gather_objects(mine)):
            return
        if self.step > max(self.saved, 0):
            self.save()
        if not mine:
            raise OthersError("another process has met a fault of the data, and says it")
        raise ValueError(f"{mine}; saved at step {self.step}" if self.saved > 0 else mine)

    def _report(self, late: Late) -> None:
        numbers = self.window.numbers(late.launched) | {"learning_rate": late.rate}
        if self.log:
            self.log.numbers(late.step, numbers)
        self.progress.say(late.step, numbers)
        self.window.restart(late.launched)  # a step's numbers are read later, some of them one after the other

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
        sums, fault = torch.zeros(()), ""
        try:
            with self.eager():
                sums = held_out_sums(self.training_step, self._current(), self.loader.held_out())
        except ValueError as error:  # of the data: all processes learn of it
            fault = str(error)
        self._end_by_fault(fault)
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
            with self.eager(), spared(f"the grid of step {self.step}"):
                show_grid(self.grid, self.log, self.loader, adapter, self.step, lambda: self.stop.is_asked)
        self.parallel.wait()
