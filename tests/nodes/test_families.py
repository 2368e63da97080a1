"""Every published family in ComfyUI's own model code against two independent implementations, a row of a table each.

Projections and text have their true size; the UNets of SDXL, SD2 and Kolors have all their layers, but narrow ones.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support import figures, models, oracles, published

pytestmark = [pytest.mark.comfy, pytest.mark.slow, pytest.mark.large]

BAR = 1e-5
NARROW = 64  # channels of the first level, 320 in the true ones


@dataclasses.dataclass(frozen=True)
class Row:
    """A family: its layout, base and what an oracle has to be told. identity: how ArcFace's is read."""

    layout: str
    base: str
    reads: str = "penultimate"
    identity: str | None = None
    pooled: int = 1024
    hidden: int = 1280
    states: int = 257
    variant: str = "auto"
    shortcut: bool = False
    zero_features: bool = False


ROWS = {
    # the largest first, before the full UNet of SD1.5 is in memory
    "Kolors FaceID plus": Row(
        "Kolors FaceID plus", "Kolors", identity="raw", hidden=1024, states=577, shortcut=True, zero_features=True
    ),
    "Kolors plus": Row("Kolors plus", "Kolors", hidden=1024, states=577),
    "FaceID plus v2 SDXL": Row("FaceID plus v2 SDXL", "SDXL", identity="normed", shortcut=True),
    "FaceID SDXL": Row("FaceID SDXL", "SDXL", "none", "normed"),
    "FaceID portrait SDXL": Row("FaceID portrait SDXL", "SDXL", "none", "normed"),
    "FaceID portrait unnorm SDXL": Row("FaceID portrait unnorm SDXL", "SDXL", "none", "raw"),
    "base SDXL (bigG)": Row("base SDXL (bigG)", "SDXL", "pooled", pooled=1280),
    "base SDXL vit-h": Row("base SDXL vit-h", "SDXL", "pooled"),
    "plus, plus-face, composition SDXL vit-h": Row("plus, plus-face, composition SDXL vit-h", "SDXL"),
    "base SD2": Row("base SD2", "SD2", "pooled"),
    "base, light SD1.5": Row("base SD1.5 (ViT-H), light", "SD15", "pooled"),
    "base SD1.5 vit-G": Row("base SD1.5 vit-G", "SD15", "pooled", pooled=1280),
    "plus, plus-face, composition SD1.5": Row("plus, plus-face, composition SD1.5", "SD15"),
    "full-face SD1.5": Row("full-face SD1.5", "SD15"),
    "FaceID SD1.5": Row("FaceID SD1.5", "SD15", "none", "normed"),
    "FaceID portrait SD1.5": Row("FaceID portrait SD1.5", "SD15", "none", "normed"),
    "FaceID plus v1 SD1.5": Row("FaceID plus v1 and v2 SD1.5", "SD15", identity="normed", variant="FaceID plus v1"),
    "FaceID plus v2 SD1.5": Row("FaceID plus v1 and v2 SD1.5", "SD15", identity="normed", shortcut=True),
}
LAYOUTS = published.LAYOUTS | {"base SD2": published.base(1024, 1024)}


TITLE = f"{'family':40} {'oracle':22} {'tokens':>8} {'prediction':>10}"


def weights_of(row: Row) -> dict[str, Tensor]:
    """Seeded weights of the true shapes; in a narrow UNet the layers are a fifth as wide."""

    def fitting(key: str, value: Tensor) -> Tensor:
        narrow = row.base != "SD15" and key.startswith("ip_adapter.")
        sizes = (size * NARROW // 320 if narrow and size in (320, 640, 1280) else size for size in value.shape)
        return torch.empty(tuple(sizes), device="meta")

    weights = published.filled({key: fitting(key, value) for key, value in LAYOUTS[row.layout].items()})
    context = models.CONTEXT[row.base]
    for key, value in weights.items():
        if "to_k_ip" in key or "to_v_ip" in key:
            value.mul_(2 * context**-0.5 / 0.02)  # strong enough to be seen in the prediction
    return weights


def given(row: Row, prompt: models.Features, roles: list[int]) -> tuple[Tensor | None, Tensor | None]:
    """What each chunk of a batch reads, by role (0 positive, 1 negative), written out from the specification."""
    assert prompt.raw is not None
    identity = None if row.identity is None else prompt.raw
    if row.identity == "normed":
        identity = F.normalize(prompt.raw, dim=-1)
    features = nothing = None
    if row.reads != "none":
        features = prompt.cond[row.reads]
        nothing = torch.zeros_like(features) if row.reads == "pooled" or row.zero_features else prompt.uncond[row.reads]
    return tuple(
        None if some is None else torch.cat([some if role == 0 else none for role in roles])
        for some, none in ((features, nothing), (identity, None if identity is None else torch.zeros_like(identity)))
    )


def one_step(model: Any, row: Row) -> dict[str, Any]:
    context, pooled = models.CONTEXT[row.base], models.POOLED.get(row.base)
    with models.Calls(model) as calls:
        models.sample(model, models.text(5, context, pooled=pooled), models.text(0, context, pooled=pooled), steps=1,
                      size=(8, 8))  # fmt: skip
    (call,) = calls
    return call


def added(call: dict[str, Any], row: Row) -> Any:
    if row.base not in models.POOLED:
        return None
    y = call["y"]  # the pooled text, then six sizes of 256 each, which diffusers embeds itself
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(len(y), -1)
    return {"text_embeds": y[:, : models.POOLED[row.base]], "time_ids": sizes}


def tokens_by(oracle: Any, row: Row, weights: dict[str, Tensor], inputs: Any) -> Tensor | None:
    extra = {"shortcut": row.shortcut} if oracle is oracles.diffusers_tokens else {}
    tokens = oracle(weights, *inputs, **extra)
    if tokens is not None and tokens.shape[-1] == 4096:  # what the UNet does with Kolors' text and tokens
        tokens = models.kolors_text_projection()(tokens)
    return tokens


def by_diffusers_unet(unet: Any, row: Row, weights: dict[str, Tensor], call: dict[str, Any], inputs: Any) -> Tensor:
    features, identities = inputs
    first = (
        oracles.as_one_input(weights, features, identities) if features is None or identities is None else identities
    )
    is_plus = features is not None and identities is not None
    projection = models.kolors_text_projection() if row.layout == "Kolors FaceID plus" else None
    with (
        oracles.merged(unet, weights),
        oracles.diffusers_loader(unet, [weights], [1.0], projection) as predict,
    ):
        return predict(
            call["x"], call["t"], call["context"], [first[:, None]], added(call, row),
            clip=features if is_plus else None, shortcut=row.shortcut,
        )  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_family(name: str, request: pytest.FixtureRequest) -> None:
    row = ROWS[name]
    channels = 320 if row.base == "SD15" else NARROW
    model, unet = models.comfy_model(row.base, channels), models.diffusers_unet(row.base, channels)
    weights = weights_of(row)
    adapter = models.loaded_adapter(weights, variant=row.variant)
    prompt = models.Features.random(tokens=row.states, pooled=row.pooled, hidden=row.hidden)
    plain = one_step(model, row)
    call = one_step(models.apply(model, adapter, prompt), row)
    effect = figures.relative(call["output"], plain["output"])
    print(f"\neffect of the adapter: {effect:.1e}")
    inputs = given(row, prompt, call["roles"])

    with torch.inference_mode():
        ours = adapter.model.image_tokens(models.core.Given(*inputs))
        if ours.shape[-1] == 4096:
            ours = models.kolors_text_projection()(ours)
        by_diffusers = tokens_by(oracles.diffusers_tokens, row, weights, inputs)
        by_package = tokens_by(oracles.package_tokens, row, weights, inputs)
        theirs = by_diffusers if by_package is None else by_package
    with oracles.package(unet, weights, 1.0, tokens=lambda _: theirs) as predict:
        package = predict(call["x"], call["t"], call["context"], None, added(call, row))
    results = {
        "diffusers": (by_diffusers, by_diffusers_unet(unet, row, weights, call, inputs)),
        "ip-adapter" if by_package is not None else "ip-adapter's layers": (by_package, package),
    }
    for oracle, (tokens, prediction) in results.items():
        in_tokens = 0.0 if tokens is None else figures.relative(ours, tokens)
        in_prediction = figures.relative(call["output"], prediction)
        shown = "-" if tokens is None else f"{in_tokens:.1e}"
        line = f"{name:40} {oracle:22} {shown:>8} {in_prediction:>10.1e}"
        figures.row(request, TITLE, line)
        assert max(in_tokens, in_prediction) <= BAR
    assert effect > 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("name", ["plus, plus-face, composition SD1.5", "full-face SD1.5", "FaceID plus v2 SD1.5"])
def test_low_precision_files_are_computed_in_fp32(name: str, dtype: torch.dtype) -> None:
    """A file's rounding is all that it loses: the same as with its weights in fp32, bit for bit."""
    row = ROWS[name]
    shapes = {key: value for key, value in LAYOUTS[row.layout].items() if "_lora." not in key}
    rounded = {key: value.to(dtype) for key, value in published.filled(shapes).items()}
    prompt = models.Features.random()
    inputs = given(row, prompt, [0, 1])
    results = []
    for weights in (rounded, {key: value.float() for key, value in rounded.items()}):
        adapter = models.loaded_adapter(weights)
        with torch.inference_mode():
            tokens = adapter.model.image_tokens(models.core.Given(*inputs))
            results.append([tokens, *(x for pair in adapter.model.keys_values(tokens).values() for x in pair)])
    assert all(a.dtype == b.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(*results))
