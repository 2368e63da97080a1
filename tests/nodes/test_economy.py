"""Nothing leaks, nothing is wasted: clones, memory, host synchronisations, work per run."""

from __future__ import annotations

import functools
import gc
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support import host, models

pytestmark = pytest.mark.comfy

Curve = models.core.Curve
WrappersMP = models.comfy.patcher_extension.WrappersMP


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    host.part("nodes.kept").clear()


@functools.cache
def adapter(family: str = "base") -> Any:
    return models.loaded_adapter(models.adapter_weights(family, models.comfy_model("SD15", 32)))


def run(model: Any, **kwargs: Any) -> torch.Tensor:
    return models.sample(model, models.text(5), models.text(0), size=(8, 8), **kwargs)


SYNCHRONISING = {"item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__float__", "__int__", "__index__"}


class Synchronisations(TorchFunctionMode):
    """Counts calls that make the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in SYNCHRONISING:
            self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchDispatchMode):
    """Counts operations that read any of the given weights."""

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.count = 0
        self.storages = {weight.untyped_storage().data_ptr() for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        self.count += any(tensor.untyped_storage().data_ptr() in self.storages for tensor in tensors)
        return func(*args, **(kwargs or {}))


def test_a_b_a_and_the_upstream_model() -> None:
    model = models.comfy_model("SD15", 32)
    first, second = models.Features.random(seed=1), models.Features.random(seed=2)
    base = run(model)
    a = models.apply(model, adapter(), first)
    once = run(a)
    b = models.apply(a, adapter(), second, mask=torch.rand(1, 32, 32))
    run(b)
    a.clone()
    assert torch.equal(run(a), once)
    assert torch.equal(run(model), base)
    assert not torch.equal(once, base)


@pytest.mark.parametrize("settings", [{"weight": 0.0}, {"start_percent": 0.5, "end_percent": 0.5}])
def test_nothing_to_do_costs_nothing(settings: dict[str, float]) -> None:
    model = models.comfy_model("SD15", 32)
    assert models.apply(model, adapter(), models.Features.random(), **settings) is model


@pytest.mark.slow
@pytest.mark.parametrize("family", ["base", "plus"])
@pytest.mark.parametrize(
    "curve", [Curve(), Curve.window(0.3, 1), Curve(((0, 1), (1, 0.2)))], ids=["", "range", "curve"]
)
def test_work_in_a_run_of_20_steps(family: str, curve: Any) -> None:
    """K', V' once per layer and role; no synchronisation (one a step with a curve); no weight read in sampling."""
    model = models.comfy_model("SD15", 32)
    loaded = adapter(family)
    patched = models.apply(model, loaded, models.Features.random(), influence=models.core.Influence(curve=curve))
    counts: Counter[str] = Counter()
    handles = [
        layer.register_forward_hook(lambda *_: counts.update(["K', V'"])) for layer in loaded.model.ip_adapter.values()
    ]
    watches: dict[str, tuple[Synchronisations, Reads]] = {}

    def sampling(name: str, sampled: Any) -> None:
        """Watch what happens inside the sampler: after the adapter is released, before the latents come back."""

        def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
            watches[name] = Synchronisations(), Reads(loaded.model.parameters())
            with watches[name][0], watches[name][1]:
                return executor(*args, **kwargs)

        watched = sampled.clone()
        watched.add_wrapper(WrappersMP.SAMPLER_SAMPLE, wrapper)
        run(watched, steps=20)

    sampling("base", model)
    sampling("adapter", patched)
    for handle in handles:
        handle.remove()
    with Reads(loaded.model.parameters()) as proof:
        loaded.model.image_tokens(models.core.Given(models.Features.random().features(loaded.spec.feature)))
    extra = watches["adapter"][0].counts - watches["base"][0].counts
    reads = watches["adapter"][1].count
    print(f"\n{family}, {curve}: {dict(counts)}, synchronisations {dict(extra)}, reads of weights {reads}")
    assert counts["K', V'"] == 16 * 2
    assert extra.total() == (20 if curve != Curve() else 0)
    assert reads == 0 < proof.count


def test_an_adapter_is_loaded_once_for_all_its_references(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as mm

    model, loaded = models.comfy_model("SD15", 32), adapter()
    other = models.loaded_adapter(models.adapter_weights("base", model, seed=7))
    patched = model
    for seed, given in ((1, loaded), (2, other), (3, loaded), (4, loaded)):
        patched = models.apply(patched, given, models.Features.random(seed=seed), 0.3)
    loads: Counter[str] = Counter()
    original = mm.load_models_gpu

    def counted(found: Any, *args: Any, **kwargs: Any) -> Any:
        loads.update(name for name, given in (("three", loaded), ("one", other)) if given.patcher in found)
        return original(found, *args, **kwargs)

    monkeypatch.setattr(mm, "load_models_gpu", counted)
    run(patched)
    assert loads == {"three": 1, "one": 1}


def test_the_start_is_exact() -> None:
    """Before the start the run is the base's, bit for bit; after it, it is not."""
    model = models.comfy_model("SD15", 32)
    patched = models.apply(model, adapter(), models.Features.random(), start_percent=0.5)
    outputs = []
    for sampled in (model, patched):
        with models.Calls(sampled) as calls:
            run(sampled, steps=6)
        outputs.append([call["output"] for call in calls])
    equal = [torch.equal(a, b) for a, b in zip(*outputs)]
    print(f"\nsteps equal to the base's: {equal}")
    assert equal[0]
    assert not equal[-1]
    assert equal == sorted(equal, reverse=True)


@pytest.mark.clock
def test_apply_takes_no_time() -> None:
    model, prompt = models.comfy_model("SD15", 320), models.Features.random()
    loaded = models.loaded_adapter(models.adapter_weights("plus", model))
    models.apply(model, loaded, prompt)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        models.apply(model, loaded, prompt)
        times.append(time.perf_counter() - start)
    print(f"\napply at full size: {1000 * min(times):.1f} ms")
    assert min(times) < 0.05


def test_the_memory_manager_counts_the_adapter_while_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as mm

    model, loaded = models.comfy_model("SD15", 32), adapter("plus")
    patched = models.apply(model, loaded, models.Features.random())
    size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    seen: list[int] = []

    def counted() -> int:
        return sum(m.model_loaded_memory() for m in mm.current_loaded_models if m.model is loaded.patcher)

    handle = loaded.model.image_proj.register_forward_hook(lambda *_: seen.append(counted()))
    before = counted()
    run(patched)
    handle.remove()
    print(
        f"\nadapter {size} bytes; counted before {before}, while K' and V' are computed {set(seen)}, after {counted()}"
    )
    assert before == counted() == 0
    assert set(seen) == {size}


def test_a_partly_loaded_adapter_gives_the_same() -> None:
    """What low VRAM does: weights stay on the offload device and are cast layer by layer."""
    model, loaded = models.comfy_model("SD15", 32), adapter("plus")
    given = models.core.Given
    features, zero = (given(torch.randn(1, 257, 1280)) for _ in range(2))
    weights = dict.fromkeys(loaded.spec.layers, 1.0)
    parts = host.part("nodes.reference")
    reference = parts.Reference(loaded, features, zero, models.core.Influence(), weights)

    def keys_values() -> Any:
        host.part("nodes.kept").clear()
        (constant,) = parts.constant_keys_values([reference], torch.device("cpu"), torch.float32)
        return constant.kv

    whole = keys_values()
    original = loaded.patcher.load
    budgets = []

    def partly(device_to: Any = None, lowvram_model_memory: int = 0, **kwargs: Any) -> Any:
        budgets.append(64 * 1024)
        return original(device_to, lowvram_model_memory=64 * 1024, **kwargs)

    loaded.patcher.load = partly
    try:
        part = keys_values()
    finally:
        del loaded.patcher.load
    assert budgets
    assert len(whole) == 2
    for role, layers in whole.items():
        for index in loaded.spec.layers:
            for a, b in zip(layers[index][:2], part[role][index][:2]):
                assert torch.equal(a, b)
    run(models.apply(model, loaded, models.Features.random()))


@pytest.mark.gpu
def test_video_memory_returns_to_where_it_was() -> None:
    import comfy.model_management as mm

    model, loaded = models.comfy_model("SD15", 32), adapter("plus")
    patched = models.apply(model, loaded, models.Features.random())
    allocated = []
    for sampled in (model, patched, patched):
        run(sampled)
        assert all(not parameter.is_cuda for parameter in loaded.model.parameters())
        mm.unload_all_models()
        gc.collect()
        allocated.append(torch.cuda.memory_allocated())
    print(f"\nallocated after the base's run, and after two with an adapter: {allocated}")
    assert max(allocated[1:]) <= allocated[0]
