"""Batches of a step: the same whatever the workers, the processes, the split and the start; bad samples replaced."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.support import runs
from tests.support.data_loading import LATENT, CountingReader, content, loader
from trainer.__main__ import main
from trainer.base.frozen import Frozen
from trainer.data import order
from trainer.data.loader import open_loader
from trainer.data.pictures import normalised
from trainer.data.report import read_report
from trainer.data.workers import ASKED
from trainer.settings.config import Config

STEPS, PER_STEP, NUMBER = 6, 8, 37


def config(folder: Path, batch_size: int = 8, processes: int = 1, accumulation: int = 1, **data: object) -> Config:
    return runs.tiny_config(
        folder,
        data=data,
        optimiser={"accumulation": accumulation},
        run={
            "steps": STEPS,
            "batch_size": batch_size,
            "processes": processes,
            "parallel": "ddp" if processes > 1 else "none",
        },
    )


def by_step(
    folder: Path, batch_size: int, processes: int, accumulation: int, workers: int = 0, bad: int = 0
) -> list[set[tuple[object, ...]]]:
    """The samples of each step, over all processes."""
    settings = config(folder, batch_size, processes, accumulation)
    Path(settings.run.folder).mkdir(exist_ok=True)
    steps: list[set[tuple[object, ...]]] = [set() for _ in range(STEPS)]
    for rank in range(processes):
        for number, batch in enumerate(
            loader(settings, CountingReader(NUMBER, bad), rank, processes, workers).batches(0)
        ):
            steps[number // accumulation] |= set(content(batch))
    return steps


@pytest.mark.parametrize("bad", [0, 5])
def test_processes_and_accumulation_share_the_same_samples_out(bad: int, tmp_path: Path) -> None:
    whole = by_step(tmp_path, 8, 1, 1, bad=bad)
    assert [len(step) for step in whole] == [PER_STEP] * STEPS
    for split in ((4, 2, 1), (2, 2, 2), (2, 4, 1), (1, 1, 8)):
        assert by_step(tmp_path, *split, bad=bad) == whole
    assert by_step(tmp_path, 4, 2, 1, workers=3, bad=bad) == whole


def test_a_start_in_the_middle_gives_the_rest(tmp_path: Path) -> None:
    settings = config(tmp_path)
    whole = [content(batch) for batch in loader(settings, CountingReader(NUMBER)).batches(0)]
    rest = [content(batch) for batch in loader(settings, CountingReader(NUMBER), workers=2).batches(4)]
    assert rest == whole[4:]


def test_the_noise_is_of_the_sample_not_of_its_batch(tmp_path: Path) -> None:
    drawn = {}
    for size, processes in ((8, 1), (4, 2)):
        settings = config(tmp_path, size, processes)
        batches = [
            batch
            for rank in range(processes)
            for batch in loader(settings, CountingReader(NUMBER), rank, processes).batches(5)
        ]
        drawn[size] = {
            float(uniform): (latent, noise)
            for batch in batches
            for uniform, latent, noise in zip(batch.uniform, batch.drawn, batch.noise, strict=True)
        }
    assert drawn[8].keys() == drawn[4].keys()
    assert len(drawn[8]) == PER_STEP
    assert all(torch.equal(a, b) for one in drawn[8] for a, b in zip(drawn[8][one], drawn[4][one], strict=True))


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_the_noise_is_drawn_in_its_order(offset: float, tmp_path: Path) -> None:
    settings = config(tmp_path)
    settings = dataclasses.replace(settings, optimiser=dataclasses.replace(settings.optimiser, noise_offset=offset))
    for step, batch in enumerate(loader(settings, CountingReader(NUMBER), workers=2).batches(0)):
        for position, (drawn, noise) in enumerate(zip(batch.drawn, batch.noise, strict=True)):
            seed = order.draws(settings.run.seed, step, position).noise_seed
            generator = torch.Generator().manual_seed(seed)
            latent, plain, channel = (torch.randn(size, generator=generator) for size in (LATENT, LATENT, (4, 1, 1)))
            assert torch.equal(drawn, latent)
            assert torch.equal(noise, plain + offset * channel)


def test_unusable_samples_are_replaced_counted_and_named(tmp_path: Path) -> None:
    settings = config(tmp_path)
    Path(settings.run.folder).mkdir()
    for workers in (0, 2):
        names = [
            name
            for batch in loader(settings, CountingReader(NUMBER, bad=4), workers=workers).batches(0)
            for name in batch.names
        ]
        assert len(names) == STEPS * PER_STEP
        assert not any(int(name) % 4 == 0 for name in names)
    named = read_report(Path(settings.run.folder) / "skipped.jsonl")
    print(f"\n{len(named)} named, {named[0]}")
    assert len(named) == len({fault.name for fault in named}) > 3
    assert all(int(fault.name) % 4 == 0 for fault in named)


def test_nothing_but_unusable_samples_is_a_sentence(tmp_path: Path) -> None:
    for workers in (0, 2):
        with pytest.raises(
            ValueError, match=r"100 samples in a row cannot be used, the last is \d+ \(for a test\)"
        ) as found:
            next(loader(config(tmp_path), CountingReader(NUMBER, bad=1), workers=workers).batches(0))
        assert "\n" not in str(found.value)


def test_held_out_samples_are_fixed_shared_out_and_never_trained(tmp_path: Path) -> None:
    settings = config(tmp_path, held_out=11)
    whole = [one for batch in loader(settings, CountingReader(NUMBER)).held_out() for one in content(batch)]
    again = [one for batch in loader(settings, CountingReader(NUMBER), workers=2).held_out() for one in content(batch)]
    shared = [
        one
        for rank in range(3)
        for batch in loader(settings, CountingReader(NUMBER), rank, 3).held_out()
        for one in content(batch)
    ]
    assert whole == again
    assert set(whole) == set(shared)
    assert len(shared) == 11
    names = {one[0] for one in whole}
    trained = {name for batch in loader(settings, CountingReader(NUMBER)).batches(0) for name in batch.names}
    assert not names & trained
    assert not any(one[2] for one in whole)
    assert [one[3] for one in whole] == [(place + 0.5) / 11 for place in range(11)]


def test_real_batches_are_what_the_frozen_parts_take(tmp_path: Path) -> None:
    settings = config(tmp_path, held_out=2)
    frozen = Frozen(settings.model)
    shape = frozen.base.latent_shape(settings.data.resolution)
    opened = open_loader(settings, frozen.encoder_facts, "pooled", latent_shape=shape)
    batch = next(iter(opened.batches(0)))
    assert batch.pixels is not None and batch.condition is not None
    assert batch.pixels.shape == (8, 3, 64, 64) and batch.condition.shape == (8, 3, 32, 32)
    assert batch.pixels.dtype == batch.condition.dtype == torch.uint8
    assert normalised(batch.pixels).min() >= -1 and normalised(batch.pixels).max() <= 1
    assert {one.target for one in batch.geometries} == {(64, 64)}
    assert frozen.base.encode_pictures(normalised(batch.pixels)).shape == (8, 2, 4, 8, 8)
    assert [reference.picture.size[1] for reference in opened.references()] == [80, 80]
    random = dataclasses.replace(settings, data=dataclasses.replace(settings.data, crop="random"))
    corners = np.concatenate(
        [
            [one.corner for one in batch.geometries]
            for batch in open_loader(random, frozen.encoder_facts, "pooled", latent_shape=shape).batches(0)
        ]
    )
    assert len(np.unique(corners, axis=0)) > 3


def test_a_batch_moves_but_for_what_is_decided_on_the_cpu(tmp_path: Path) -> None:
    settings = config(tmp_path)
    batch = dataclasses.replace(
        next(loader(settings, CountingReader(NUMBER)).batches(0)), texts={"states": torch.zeros(8, 2)}
    )
    moved = batch.to("meta", non_blocking=True)
    assert moved.texts is not None
    for value in (moved.pixels, moved.drawn, moved.noise, moved.texts["states"]):
        assert value is not None and value.is_meta
    assert moved.drop_image is batch.drop_image and moved.uniform is batch.uniform
    assert moved.moments is None and moved.names == batch.names and not batch.noise.is_meta


@pytest.mark.gpu
def test_a_batch_is_pinned_and_copied_beside_the_rest(tmp_path: Path) -> None:
    batch = next(loader(config(tmp_path), CountingReader(NUMBER), workers=1).batches(0))
    assert batch.noise.is_pinned() and batch.pixels is not None and batch.pixels.is_pinned()
    moved = batch.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(moved.noise.cpu(), batch.noise)


def test_workers_live_through_an_interrupt_and_end_with_their_batches(tmp_path: Path) -> None:
    batches = loader(config(tmp_path), CountingReader(NUMBER), workers=2).batches(0)
    seen = [next(batches), next(batches)]  # one of each worker, so that both have begun
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
    seen += list(batches)
    assert len(seen) == STEPS
    assert not multiprocessing.active_children()


def test_workers_live_through_what_reaches_them_as_they_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled(threads: int) -> None:  # torch's first lines in a worker, before any of ours
        for name in ASKED:
            os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr(torch, "set_num_threads", signalled)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    batches = loader(config(tmp_path), CountingReader(NUMBER), workers=2).batches(0)
    next(batches)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before  # here they come in again
    assert len(list(batches)) == STEPS - 1


def test_a_worker_whose_training_ended_as_it_began_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, told = loader(config(tmp_path), CountingReader(NUMBER), workers=1).batches(0), tmp_path / "worker"

    def orphaned(threads: int) -> None:
        parent = os.getppid()
        told.with_suffix(".new").write_text(str(os.getpid()))
        told.with_suffix(".new").rename(told)
        while os.getppid() == parent:
            time.sleep(0.01)

    monkeypatch.setattr(torch, "set_num_threads", orphaned)
    training = multiprocessing.get_context("fork").Process(target=next, args=(batches,))
    training.start()
    while not told.exists():
        assert training.is_alive()
        time.sleep(0.01)
    worker = psutil.Process(int(told.read_text()))
    training.kill()
    training.join()
    assert psutil.wait_procs([worker], timeout=10)[1] == []


@pytest.mark.parametrize("command", ["check", "cache"])
def test_the_end_of_a_worker_is_said_by_every_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.data.workers.start_worker", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    made = runs.tiny_config(tmp_path, data={"workers": 1, "cache": str(tmp_path / "cache")})
    assert main([command, str(runs.write_config(made, tmp_path / "run.toml"))]) == 1
    error = capsys.readouterr().err
    assert "error: a loader process has ended (DataLoader worker" in error
