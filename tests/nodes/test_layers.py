"""Every layer counts: changing K' or V' of any one layer changes the prediction, the middle block included."""

from __future__ import annotations

import pytest
import torch

from tests.support import figures, host, models

pytestmark = pytest.mark.comfy


@pytest.mark.parametrize(
    ("base", "channels", "layers"), [("SD15", 32, 16), pytest.param("SDXL", 64, 70, marks=pytest.mark.slow)]
)
def test_every_layer_counts(base: str, channels: int, layers: int) -> None:
    model = models.comfy_model(base, channels)
    context, pooled = (768, None) if base == "SD15" else (2048, 1280)
    adapter = models.loaded_adapter(models.adapter_weights("base", model))
    patched = models.apply(model, adapter, models.Features.random())
    texts = models.text(5, context, pooled=pooled), models.text(0, context, pooled=pooled)

    def prediction() -> torch.Tensor:
        with models.Calls(patched) as calls:
            models.sample(patched, *texts, cfg=1.0, steps=1, size=(8, 8))
        return calls[0]["output"]

    before = prediction()
    changes: dict[tuple[str, int], float] = {}
    for index, layer in adapter.model.ip_adapter.items():
        for name, linear in (("K'", layer.to_k_ip), ("V'", layer.to_v_ip)):
            kept = linear.weight.clone()
            linear.weight.mul_(-1)
            changes[name, int(index)] = figures.relative(prediction(), before)
            linear.weight.copy_(kept)
    assert torch.equal(prediction(), before)
    (weakest, change) = min(changes.items(), key=lambda item: item[1])
    print(f"\n{base}: {len(changes)} perturbations of {layers} layers, the weakest ({weakest}) changes {change:.1e}")
    assert len(changes) == 2 * layers
    assert change > 1e-6


def test_middle_off_is_all_but_the_middle() -> None:
    model = models.comfy_model("SD15", 32)
    _, sites = host.part("nodes.hosts").host_of(model)
    weights = models.core.layer_weights("middle off (as in older packs)", sites)
    assert sorted(weights) == list(range(1, 31, 2))


def test_a_model_without_cross_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.comfy_model("SD15", 32).clone()
    model.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="no cross-attention layers"):
        models.apply(model, models.adapter_weights("base", models.comfy_model("SD15", 32)), models.Features.random())
