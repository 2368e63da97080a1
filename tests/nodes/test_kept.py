"""A run that does nothing twice: K' and V' stay, counted and bounded, and never longer than what they depend on."""

from __future__ import annotations

import functools
import gc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import torch

from tests.support import host, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
Influence = models.core.Influence
kept, reference = host.part("nodes.kept"), host.part("nodes.reference")
mm = models.comfy.model_management
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    kept.clear()
    yield
    kept.clear()


@functools.cache
def adapter(family: str = "base", seed: int = 1) -> Any:
    return models.loaded_adapter(models.adapter_weights(family, models.comfy_model("SD15", 32), seed=seed))


def references(*clones: Any) -> list[Any]:
    return [clone.get_attachment("image_prompt").references[-1] for clone in clones]


def keys_values(*given: Any, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> list[Any]:
    return [constant.kv for constant in reference.constant_keys_values(given, device, dtype)]


def run(model: Any, **kwargs: Any) -> torch.Tensor:
    return models.sample(model, models.text(5), models.text(0), size=(8, 8), steps=1, **kwargs)


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for role in a for i in a[role] for x, y in zip(a[role][i][:2], b[role][i][:2]))


@contextmanager
def counted(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Layers and projections that are computed, and how often the adapter is loaded."""
    counts: Counter[str] = Counter()
    modules = {"projection": loaded.model.image_proj} | dict(loaded.model.ip_adapter.items())
    handles = [
        module.register_forward_hook(lambda *_, name=name: counts.update([name])) for name, module in modules.items()
    ]
    original = mm.load_models_gpu

    def load(found: Any, *args: Any, **kwargs: Any) -> Any:
        counts["loads"] += loaded.patcher in found
        return original(found, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(mm, "load_models_gpu", load)
        yield counts
    for handle in handles:
        handle.remove()


CHANGES: dict[str, dict[str, Any]] = {
    "the same": {},
    "weight": {"weight": 0.3},
    "fewer layers": {"layers": {1: 0.5, 7: 1.0}},
    "scaling": {"scaling": "K+mean(V) w/ C penalty"},
    "roles": {"roles": (1.0, 0.5)},
    "mask": {"mask": torch.ones(1, 8, 8)},
    "frames": {"frames": (0.5, 1.0)},
    "rescale": {"rescale": 0.5},
}


@pytest.mark.parametrize("family", ["base", "plus"])
def test_a_second_run_computes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one with another weight, or whatever else is only put on K' and V'; and it is as if nothing was kept."""
    model, prompt, loaded = models.comfy_model("SD15", 32), models.Features.random(), adapter(family)
    first = models.apply(model, loaded, prompt)
    with counted(loaded, monkeypatch) as counts:
        run(first)
    print(f"\n{family}: the first run {counts.total() - counts['loads']} modules, {counts['loads']} load")
    assert counts["loads"] == 1 and counts["projection"] == 2
    for name, change in CHANGES.items():
        changed = models.apply(model, loaded, prompt, influence=Influence(**change))
        with counted(loaded, monkeypatch) as counts:
            again = run(changed)
        assert counts.total() == 0, f"{name}: {dict(counts)}"
    kept.clear()
    assert torch.equal(again, run(changed))


def test_more_layers_compute_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt, loaded = models.comfy_model("SD15", 32), models.Features.random(), adapter()
    two, other, whole = references(
        *(models.apply(model, loaded, prompt, influence=Influence(layers=layers))
          for layers in ({1: 1.0, 7: 0.5}, {7: 1.0, 9: 0.5}, "all"))
    )  # fmt: skip
    keys_values(two)
    for given, new in ((other, {"9"}), (whole, {str(i) for i in loaded.spec.layers} - {"1", "7", "9"}), (two, set())):
        with counted(loaded, monkeypatch) as counts:
            (found,) = keys_values(given)
        assert {name for name in counts if name.isdigit()} == new
        saved = {role: {i: tuple(x.clone() for x in kv[:2]) for i, kv in of.items()} for role, of in found.items()}
        held = dict(kept._entries)
        kept.clear()
        assert same(saved, keys_values(given)[0])
        kept._entries.clear()
        kept._entries.update(held)


def test_a_b_a_with_two_adapters_and_a_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another adapter, picture or way to combine is given is never mixed up, and A is A again."""
    model, one, two = models.comfy_model("SD15", 32), models.Features.random(2), models.Features.random(2, seed=5)
    settings = [
        (adapter(), one, {}), (adapter(seed=3), one, {}), (adapter(), two, {}),
        (adapter(), one, {"combine": "average"}), (adapter(), one, {"combine": "one for each latent"}),
        (adapter(), one, {"negative": two}),
    ]  # fmt: skip
    clones: list[Any] = []
    for loaded, prompt, others in settings:
        given = host.part("nodes.forms.controls").controls() | others
        clones.append(host.part("nodes.apply").apply_adapter(model, loaded, prompt, **given))
    first = [run(clone) for clone in clones]
    assert len(kept._entries) == len(settings)
    again = [run(clone) for clone in reversed(clones)][::-1]
    fresh = []
    for clone in clones:
        kept.clear()
        fresh.append(run(clone))
    for a, b, c in zip(first, again, fresh, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    assert not any(torch.equal(first[0], other) for other in first[1:])


@pytest.mark.parametrize("is_inference", [False, True], ids=["", "made in inference mode"])
def test_a_change_in_place_is_seen(is_inference: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the features, also where torch counts no versions, and of the adapter's weights."""
    loaded = models.loaded_adapter(models.adapter_weights("base", models.comfy_model("SD15", 32)))
    with torch.inference_mode(is_inference):
        prompt = models.Features.random(pictures=2)
        features = prompt.features("pooled")
        (given,) = references(models.apply(models.comfy_model("SD15", 32), loaded, prompt))
        before = keys_values(given)[0]
        features.copy_(features.flip(0))
        swapped = keys_values(given)[0]
        features.mul_(1.5)
        louder = keys_values(given)[0]
    assert not same(before, swapped) and not same(swapped, louder)
    loaded.model.ip_adapter["1"].to_v_ip.weight.mul_(-1)
    changed = keys_values(given)[0]
    assert not same(louder, changed)
    with counted(loaded, monkeypatch) as counts:
        assert same(changed, keys_values(given)[0])
    assert counts.total() == 0


def test_each_precision_has_its_own() -> None:
    (given,) = references(models.apply(models.comfy_model("SD15", 32), adapter(), models.Features.random(), 0.7))
    found = {dtype: keys_values(given, dtype=dtype)[0] for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    assert len(kept._entries) == 3
    for dtype, kv in found.items():
        for role, layers in kv.items():
            for index, image in layers.items():
                whole = found[torch.float32][role][index]
                assert image.k.dtype == image.v.dtype == dtype
                for part, exact in zip(image[:2], whole[:2]):
                    assert (part.float() - exact).abs().max() <= 2 * torch.finfo(dtype).eps * exact.abs().max()
        assert same(kv, keys_values(given, dtype=dtype)[0])


def test_the_memory_manager_counts_them_and_takes_them_off() -> None:
    model = models.comfy_model("SD15", 32)
    patched = models.apply(model, adapter(), models.Features.random(), 0.7)

    def counted() -> int:
        patchers = {id(entry.patcher) for entry in kept._entries.values()}
        return sum(found.model_loaded_memory() for found in mm.current_loaded_models if id(found.model) in patchers)

    first = run(patched)
    assert counted() == kept.held() > 0
    mm.unload_all_models()
    print(f"\nkept {kept.held()} bytes, counted after everything is unloaded {counted()}")
    assert counted() == 0
    assert torch.equal(run(patched), first)
    assert counted() == kept.held()


def test_they_end_with_their_adapter_and_their_prompt() -> None:
    model = models.comfy_model("SD15", 32)
    loaded, prompt = models.loaded_adapter(models.adapter_weights("base", model)), models.Features.random()
    clone = models.apply(model, loaded, prompt)
    other = models.apply(model, adapter(), models.Features.random(seed=8))
    run(clone)
    assert kept.held() > 0
    del clone, prompt
    gc.collect()
    run(other)
    assert len(kept._entries) == 1, "the prompt is gone, and the next run asks for another"
    run(models.apply(model, loaded, models.Features.random()))
    del loaded
    gc.collect()
    assert {id(entry.adapter()) for entry in kept._entries.values()} == {id(adapter())}


def test_a_new_apply_of_the_same_picture_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the clone of before is gone: ComfyUI drops it once a widget has changed."""
    model, prompt = models.comfy_model("SD15", 32), models.Features.random()
    clone = models.apply(model, adapter(), prompt)
    run(clone)
    del clone
    gc.collect()
    with counted(adapter(), monkeypatch) as counts:
        run(models.apply(model, adapter(), prompt, 0.5))
    assert counts.total() == 0


def test_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used goes first, and what is larger than all is not kept and does not drive out others."""
    model = models.comfy_model("SD15", 32)
    prompts = [models.Features.random(seed=seed) for seed in range(3)]
    clones = [models.apply(model, adapter(), prompt) for prompt in prompts]
    run(clones[0])
    size = kept.held()
    monkeypatch.setattr(kept, "LIMIT", int(2.5 * size))
    for clone in (clones[1], clones[0], clones[2]):
        run(clone)
    assert kept.held() == 2 * size
    (given, *_) = references(clones[1])
    (key,) = [key for key in kept._entries if kept._entries[key].owners[0]() is prompts[0].features("pooled")]
    assert next(iter(kept._entries)) == key and given.inputs.features is prompts[1].features("pooled")
    large = models.apply(model, adapter(), models.Features.random(6))
    before = list(kept._entries)
    assert torch.equal(run(large), run(large))
    assert list(kept._entries) == before


def test_threads_lay_out_the_same() -> None:
    """A model's clones for several devices ask from threads of their own."""
    layout = host.part("nodes.layout")
    chunks = tuple(layout.Chunk(role) for role in host.part("nodes.stacks").Role)
    (given,) = references(models.apply(models.comfy_model("SD15", 32), adapter(), models.Features.random(8), 0.5))
    (source,) = reference.constant_keys_values([given], CPU, torch.float32)
    heads, influence = dict.fromkeys(given.layer_weights, 8), Influence(frames=(0.5, 1.0))
    layouts = layout.Layouts(source.at(None), heads, influence, (8, 8))
    expected = layouts.tensors(chunks, layout.Excerpt((0, 1)), CPU, None)
    wrong: list[int] = []

    def ask(number: int) -> None:
        for turn in range(50):
            rows = (number, turn % 7) if turn % 2 else (0, 1)
            found = layouts.tensors(chunks, layout.Excerpt(rows), CPU, None)
            if rows == (0, 1) and not torch.equal(found.layers[1].v, expected.layers[1].v):
                wrong.append(turn)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))  # raises what is raised there
    assert not wrong


@pytest.mark.memory
def test_a_thousand_runs_with_other_pictures_hold_no_more() -> None:
    model, loaded = models.comfy_model("SD15", 32), adapter()
    sizes, held = [], []
    for seed in range(1000):
        prompt = models.Features.random(seed=seed, tokens=2)
        (given,) = references(models.apply(model, loaded, prompt, 0.5))
        reference.constant_keys_values([given], CPU, torch.float32)
        if seed % 100 == 99:
            sizes.append(psutil.Process().memory_info().rss / 2**20)
            held.append((len(kept._entries), kept.held(), len(mm.current_loaded_models)))
    print(f"\nRSS MiB after each hundred: {[round(size) for size in sizes]}; kept {set(held)}")
    assert len({entries for entries, *_ in held}) == 1 and max(bytes_ for _, bytes_, _ in held) == held[0][1]
    assert sizes[-1] - sizes[1] < 10


@pytest.mark.parametrize("shape", [(5,), (), (2, 3), (2, 3, 4)])
def test_tensors_of_any_shape_are_known_again(shape: tuple[int, ...]) -> None:
    """Also those made in inference mode, as a model's bias is in a server: they count no versions."""
    sameness = host.part("nodes.sameness")
    with torch.inference_mode():
        value = torch.randn(shape)
        same, before = value.clone(), sameness.token_of(value)
        assert sameness.token_of(value) == before == sameness.token_of(same)
        value += 1
        assert sameness.token_of(value) != before == sameness.token_of(same)
