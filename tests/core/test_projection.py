"""The projections against the reference's package and diffusers, on the same random weights of true shape."""

import figures
import oracles
import published
import pytest
import torch
from diffusers.loaders.unet import UNet2DConditionLoadersMixin
from torch import Tensor

from ipadapter_core import AdapterSpec, build_adapter, detect
from ipadapter_core.projection import build_projection

LIMIT = 1e-5


def features(spec: AdapterSpec, kind: str) -> Tensor:
    """Two pictures' features of the width that the adapter reads."""
    shape = (2, spec.feature_dim) if spec.feature == "pooled" else (2, 257, spec.feature_dim)
    return torch.zeros(shape) if kind == "zero" else torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("name", published.LAYOUTS)
def test_image_tokens(name):
    spec = detect(published.LAYOUTS[name])
    shapes = {key: value for key, value in published.LAYOUTS[name].items() if key.startswith("image_proj.")}
    tensors = published.filled(shapes)
    weights = oracles.group(tensors, "image_proj")
    ours = build_projection(spec, device="meta")
    ours.load_state_dict(weights, assign=True)
    package = oracles.package_projection(tensors)
    loader = UNet2DConditionLoadersMixin()
    diffusers = loader._convert_ip_adapter_image_proj_to_diffusers(weights, low_cpu_mem_usage=False)
    for kind in ("random", "zero"):
        given = features(spec, kind)
        tokens = ours(given)
        assert tokens.shape == (2, spec.num_tokens, spec.context_dim)
        figures.show(f"{name}, {kind} features, the package", tokens, package(given), LIMIT)
        figures.show(f"{name}, {kind} features, diffusers", tokens, diffusers(given), LIMIT)


@torch.no_grad()
def test_keys_and_values():
    """K' and V' are the file's matrices times the tokens, for all layers or those that are asked for."""
    tensors = published.filled(published.LAYOUTS["base SD1.5 (ViT-H), light"])
    adapter = build_adapter(tensors)
    tokens = torch.randn(2, 4, 768)
    keys_values = adapter.keys_values(tokens)
    assert tuple(keys_values) == adapter.spec.layers
    worst = max(
        figures.relative(ours, tokens @ tensors[f"ip_adapter.{index}.{name}.weight"].T)
        for index, pair in keys_values.items()
        for name, ours in zip(("to_k_ip", "to_v_ip"), pair)
    )
    print(f"K' and V' of 16 layers: max |difference| / max |reference| = {worst:.2e} (limit {LIMIT:.0e})")
    assert worst <= LIMIT
    assert list(adapter.keys_values(tokens, [5, 1])) == [5, 1]
    assert adapter.keys_values(tokens, []) == {}
