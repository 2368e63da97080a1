"""Where a reference acts: the recorded shares against a formula of their own, at their place, of their run, bounded."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.nodes.test_windows import windowed
from tests.support import host, models

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
BAR = 1e-5
record, maps = host.part("nodes.record"), host.part("nodes.attention_map")
forms, hosts = host.part("nodes.forms.record"), host.part("nodes.hosts")


@functools.cache
def adapter() -> Any:
    return models.loaded_adapter(models.adapter_weights("base", models.comfy_model("SD15", 32)))


def model() -> Any:
    return models.comfy_model("SD15", 32)


def sites() -> Any:
    return hosts.host_of(model())[1]


def recorded(patched: Any) -> tuple[Any, Any]:
    return forms.RecordAttention.execute(patched).args


def run(patched: Any, steps: int = 1, size: tuple[int, int] = (16, 16), **kwargs: Any) -> Tensor:
    return models.sample(
        patched, kwargs.pop("positive", models.text(5)), models.text(0), steps=steps, size=size, **kwargs
    )


def mapped(found: Any, latents: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return maps.attention_map(found.of(latents), *args, **kwargs).shares


@contextmanager
def projections() -> Iterator[dict[int, dict[str, Tensor]]]:
    """What to_q, to_k and to_v of every cross-attention gave in the last forward pass, by checkpoint index."""
    unet, seen, handles = model().model.diffusion_model, {}, []
    for site in sites():
        seen[site.index] = {}
        for name in ("to_q", "to_k", "to_v"):
            module = unet.get_submodule(f"{site.comfyui}.{name}")
            keep = functools.partial(lambda place, key, _, __, out: place.update({key: out}), seen[site.index], name)
            handles.append(module.register_forward_hook(keep))
    yield seen
    for handle in handles:
        handle.remove()


def attended(q: Tensor, k: Tensor, v: Tensor, heads: int = 8) -> Tensor:
    """softmax(q k / sqrt(d)) v by heads, written out: [N, D]."""
    parts = [(a @ b.T / a.shape[1] ** 0.5).softmax(-1) @ c for a, b, c in zip(*(x.chunk(heads, -1) for x in (q, k, v)))]
    return torch.cat(parts, -1)


def by_formula(
    seen: dict[int, dict[str, Tensor]],
    prompt: Any,
    weight: float,
    size: tuple[int, int],
    row: int = 1,
    mask: Any = None,
) -> dict[int, Tensor]:
    """|image| / (|text| + |image|) of the conditional row, at every layer's own grid."""
    loaded, found = adapter().model, {}
    tokens = loaded.image_tokens(models.core.Given(prompt.features("pooled")))
    for index, (k, v) in loaded.keys_values(tokens, dict.fromkeys(adapter().spec.layers, 1.0)).items():
        q, text_k, text_v = (seen[index][name][row].float() for name in ("to_q", "to_k", "to_v"))
        halvings = {size[0] * size[1] >> 2 * level: level for level in range(4)}[len(q)]
        grid = (size[0] >> halvings, size[1] >> halvings)
        image = weight * attended(q, k[0], v[0])
        if mask is not None:
            cells = mask.reshape(grid[0], size[0] // grid[0], grid[1], size[1] // grid[1]).mean((1, 3))
            image = image * cells.reshape(-1, 1)
        a, b = (part.square().sum(-1).sqrt() for part in (image, attended(q, text_k, text_v)))
        found[index] = (a / (a + b)).reshape(grid)
    return found


def large(one: Tensor, size: tuple[int, int]) -> Tensor:
    times = size[0] // one.shape[0]
    return one.repeat_interleave(times, 0).repeat_interleave(times, 1)


@pytest.mark.parametrize("is_first", [False, True], ids=["record after apply", "record before apply"])
def test_the_map_is_the_formulas(is_first: bool) -> None:
    prompt, size = models.Features.random(), (16, 8)
    if is_first:
        patched, found = recorded(model())
        patched = models.apply(patched, adapter(), prompt, 0.1)
    else:
        patched, found = recorded(models.apply(model(), adapter(), prompt, 0.1))
    with projections() as seen, models.Calls(model()) as calls, torch.inference_mode():
        latents = run(patched, size=size)
        (call,) = calls
        expected = by_formula(seen, prompt, 0.1, size, call["roles"].index(0))
    numbers = models.core.module_numbers(sites())
    worst = 0.0
    for index, one in expected.items():
        ours = mapped(found, latents, layers=str(numbers[index]))
        worst = max(worst, (ours[0] - large(one, size)).abs().max().item())
    whole = torch.stack([large(one, size) for one in expected.values()]).mean(0)
    difference = (mapped(found, latents)[0] - whole).abs().max().item()
    print(f"\nlayer by layer {worst:.1e}, their mean {difference:.1e}; shares {whole.min():.3f} to {whole.max():.3f}")
    assert max(worst, difference) <= BAR
    assert whole.max() - whole.min() > 100 * BAR


def test_a_mask_leaves_nothing_outside() -> None:
    mask, size = torch.zeros(1, 16, 16), (16, 16)
    mask[..., 8:] = torch.rand(16, 8, generator=torch.Generator().manual_seed(4))
    prompt = models.Features.random()
    patched, found = recorded(models.apply(model(), adapter(), prompt, mask=mask))
    with projections() as seen, models.Calls(model()) as calls, torch.inference_mode():
        latents = run(patched, size=size)
        expected = by_formula(seen, prompt, 1.0, size, calls[0]["roles"].index(0), mask)
    ours = mapped(found, latents, layers="down, up")[0]
    middle = next(site.index for site in sites() if site.place[0] == "mid")
    whole = torch.stack([large(one, size) for index, one in expected.items() if index != middle]).mean(0)
    print(f"\ninside {ours[:, 8:].mean():.2f}, outside {ours[:, :8].abs().max():.1e}")
    assert (ours[:, :8] == 0).all() and (ours[:, 8:] > 0).all()
    assert (ours - whole).abs().max() <= BAR


def test_two_references_are_told_apart() -> None:
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    patched = models.apply(model(), adapter(), models.Features.random(), mask=left)
    patched = models.apply(patched, adapter(), models.Features.random(seed=7), 0.5, mask=1 - left)
    patched, found = recorded(patched)
    latents = run(patched)
    first, second = mapped(found, latents, 0)[0], mapped(found, latents, 1)[0]
    assert (first[:, :8] > 0).all() and (first[:, 8:] == 0).all()
    assert (second[:, 8:] > 0).all() and (second[:, :8] == 0).all()


def test_a_b_a_nothing_changes_by_a_bit_and_the_last_run_is_kept() -> None:
    plain = models.apply(model(), adapter(), models.Features.random())
    before = run(plain, steps=2)
    patched, found = recorded(plain)
    latents = run(patched, steps=2)
    first = found.of(latents)
    other = run(patched, steps=2, seed=4)
    assert torch.equal(latents, before) and torch.equal(run(plain, steps=2), before)
    assert found.of(other) is not first
    alone, alone_found = recorded(plain)
    assert torch.equal(mapped(found, other), mapped(alone_found, run(alone, steps=2, seed=4)))
    with pytest.raises(ValueError, match="is of an earlier run"):
        found.of(latents)


def test_without_a_record_nothing_is_computed_for_it() -> None:
    """The same operations of torch before, beside and after a clone that is recorded; more only in that one."""

    class Operations(TorchDispatchMode):
        counts: Counter[str]

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.counts[str(func)] += 1
            return func(*args, **(kwargs or {}))

    def counted(patched: Any) -> Counter[str]:
        with Operations() as operations:
            operations.counts = Counter()
            run(patched)
        return operations.counts

    plain = models.apply(model(), adapter(), models.Features.random())
    run(plain)
    before = counted(plain)
    patched, _ = recorded(plain)
    assert counted(plain) == before
    more = counted(patched) - before
    assert counted(plain) == before
    print(f"\n{before.total()} operations; {more.total()} more where it is recorded")
    assert "aten.linalg_vector_norm.default" in more and "aten.linalg_vector_norm.default" not in before


def test_memory_is_bounded_in_steps_and_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "STEPS", 6)
    patched, found = recorded(models.apply(model(), adapter(), models.Features.random()))
    sizes = []
    for steps in (1, 6, 30):
        latents = run(patched, steps=steps, size=(8, 8), scheduler="simple", cfg=1.0)
        sizes.append((len(found.of(latents).steps), found.of(latents).num_bytes))
    found.of(run(patched, size=(80, 8)))
    sides = {side for one in found.run.sums.values() for side in one.total.shape[-2:]}
    print(f"\nparts of the sampling and bytes after 1, 6 and 30 steps: {sizes}; positions along a side {sorted(sides)}")
    assert sizes[2] == (6, 6 * sizes[0][1]) and sizes[1][1] <= sizes[2][1]
    assert max(sides) == record.LARGEST


def test_steps_are_told_apart_and_calls_at_one_sigma_are_averaged() -> None:
    """heun calls twice in a step: the map of a range is the mean of the calls in it."""
    prompt = models.Features.random()
    patched, found = recorded(models.apply(model(), adapter(), prompt, end_percent=0.5))
    expected: list[tuple[float, Tensor]] = []
    size = (8, 8)
    with projections() as seen:

        def keep(_: Any, __: Any, kwargs: Any, ___: Any) -> None:
            options = kwargs["transformer_options"]
            shares = by_formula(seen, prompt, 1.0, size, options["cond_or_uncond"].index(0))
            mean = torch.stack([large(one, size) for one in shares.values()]).mean(0)
            expected.append((float(options["sigmas"][0]), mean))

        handle = model().model.diffusion_model.register_forward_hook(keep, with_kwargs=True)
        latents = run(patched, steps=6, size=size, sampler="heun", scheduler="simple")
        handle.remove()
    progress = host.part("nodes.progress").Progress(model().get_model_object("model_sampling").percent_to_sigma)
    half = float(model().get_model_object("model_sampling").percent_to_sigma(0.5))
    for start, end in ((0.0, 1.0), (0.0, 0.2), (0.2, 0.6)):
        by_sigma: dict[float, list[Tensor]] = {}
        for sigma, one in expected:
            if start <= progress(sigma) <= end and sigma >= half:
                by_sigma.setdefault(sigma, []).append(one)
        mean = torch.stack([torch.stack(ones).mean(0) for ones in by_sigma.values()]).mean(0)
        difference = (mapped(found, latents, 0, "", start, end)[0] - mean).abs().max().item()
        print(f"\n{start} to {end}: {len(by_sigma)} sigmas, {sum(map(len, by_sigma.values()))} calls: {difference:.1e}")
        assert difference <= BAR
    with pytest.raises(ValueError, match="in no prediction between"):
        mapped(found, latents, 0, "", 0.7, 1.0)


def test_areas_and_windows_are_put_at_their_place() -> None:
    """A text on the lower half alone, and latents in windows along the batch, the height and the width."""
    patched, found = recorded(models.apply(model(), adapter(), models.Features.random()))
    area = mapped(found, run(patched, positive=models.text(5, area=(8, 16, 8, 0), strength=1.0)), layers="0, 15")[0]
    assert (area[:8] == 0).all() and (area[8:] > 0).all()
    half = torch.zeros(1, 16, 16)
    half[..., 12:] = 1
    for dim, batch in ((0, 4), (2, 1), (3, 1)):
        mask = half if dim == 3 else half.transpose(1, 2)
        patched, found = recorded(models.apply(model(), adapter(), models.Features.random(), mask=mask))
        latents = run(windowed(patched, dim, 2 if dim == 0 else 8), batch=batch)
        shares = mapped(found, latents, layers="0, 15")
        inside = mask.bool().expand_as(shares)
        print(f"\nwindows along {dim}: inside {shares[inside].mean():.2f}, outside {shares[~inside].abs().max():.1e}")
        assert (shares[inside] > 0).all() and (shares[~inside] == 0).all()


def test_each_latent_has_its_map() -> None:
    masks = torch.stack([torch.ones(4, 4), torch.zeros(4, 4), torch.ones(4, 4)])
    patched, found = recorded(models.apply(model(), adapter(), models.Features.random(), mask=masks))
    shares = mapped(found, run(patched, batch=3))
    assert (shares[0] > 0).all() and (shares[1] == 0).all() and (shares[2] > 0).all()


@pytest.mark.slow
def test_a_compiled_model_is_recorded_alike() -> None:
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    torch._dynamo.reset()
    compiled = model().clone()
    set_torch_compile_wrapper(compiled, backend="eager")
    shares = []
    for on in (compiled, model()):
        patched, found = recorded(models.apply(on, adapter(), models.Features.random()))
        shares.append(mapped(found, run(patched, steps=2, size=(8, 8))))
    torch._dynamo.reset()
    print(f"\ncompiled against not: {(shares[0] - shares[1]).abs().max():.1e}")
    assert (shares[0] - shares[1]).abs().max() <= BAR
