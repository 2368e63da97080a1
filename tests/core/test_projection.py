"""The projections against the reference's package and diffusers, on the same random weights of true shape."""

import pytest
import torch

from ipadapter_core import AdapterSpec, Given, IPAdapter, build_adapter, detect, resolve_variant
from ipadapter_core.method.projection import build_projection
from tests.support import figures, oracles, published

LIMIT = 1e-5


def inputs(spec: AdapterSpec, kind: str) -> Given:
    """Two pictures' features and identities, as the adapter reads them."""
    generator = torch.Generator().manual_seed(1)
    states = spec.feature_length or 257
    shape = (2, spec.feature_dim) if spec.feature == "pooled" else (2, states, spec.feature_dim)
    features = None if spec.feature is None else torch.randn(shape, generator=generator)
    identities = None if spec.identity is None else torch.randn(2, 512, generator=generator)
    if spec.identity == "normed":
        identities = identities / identities.norm(dim=-1, keepdim=True)
    return Given(*(x if x is None or kind == "random" else torch.zeros_like(x) for x in (features, identities)))


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=pytest.mark.slow if "Kolors" in x or "SDXL" in x else ()) for x in published.LAYOUTS],
)
def test_image_tokens(name):
    spec = detect(published.LAYOUTS[name])
    shapes = {key: value for key, value in published.LAYOUTS[name].items() if key.startswith("image_proj.")}
    tensors = published.filled(shapes)
    ours = build_projection(spec, device="meta")
    ours.load_state_dict(oracles.group(tensors, "image_proj"), assign=True)
    adapter = IPAdapter(spec, dict.fromkeys(spec.layers, 1), device="meta")
    adapter.image_proj = ours
    theirs = {"the package": oracles.package_tokens, "diffusers": oracles.diffusers_tokens}
    for kind in ("random", "zero"):
        given = inputs(spec, kind)
        tokens = adapter.image_tokens(given)
        assert tokens.shape == (2, spec.num_tokens, spec.projected_dim)
        for oracle, reference in theirs.items():
            if (expected := reference(tensors, *given)) is not None:
                figures.show(f"{name}, {kind} features, {oracle}", tokens, expected, LIMIT)


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 2.5])
def test_shortcut_of_face_id_plus(scale):
    """v2 adds `scale` of what it reads of the picture; v1 has nothing but that."""
    name = "FaceID plus v1 and v2 SD1.5"
    shapes = {key: value for key, value in published.LAYOUTS[name].items() if key.startswith("image_proj.")}
    tensors = published.filled(shapes)
    for variant in ("FaceID plus v1", "FaceID plus v2"):
        spec = resolve_variant(detect(published.LAYOUTS[name]), {}, variant)
        ours = build_projection(spec, device="meta")
        ours.load_state_dict(oracles.group(tensors, "image_proj"), assign=True)
        given = inputs(spec, "random")
        expected = oracles.diffusers_tokens(tensors, *given, shortcut=spec.shortcut, scale=scale)
        figures.show(f"{variant}, scale {scale}, diffusers", ours(given, scale), expected, LIMIT)


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
