"""How a file's keys and shapes tell each family: one function a family, None where the file is of another.

What shapes cannot tell is left at its default (`variants` asks metadata and user).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..method.spec import (
    IDENTITY_DIM,
    AdapterSpec,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    ResamplerProjection,
)
from .bases import KOLORS, SD15, find_base
from .encoders import ARCHITECTURES

HEAD_WIDTH = 64  # of every published resampler
FACE_ID_TOKENS = 4  # FaceID portrait has 16 for each face
FULL_FACE_TOKENS = 257  # one for each hidden state of an encoder with 16 x 16 patches and the class
KOLORS_ENCODER = ARCHITECTURES["ViT-L-14-336-quickgelu"]
IDENTITY_KEYS = {"proj.0.weight", "proj.2.weight", "norm.weight"}
PERCEIVER_KEYS = ("proj_in.weight", "proj_out.weight", "layers.0.0.to_q.weight", "layers.0.1.1.weight")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """What a flattened adapter's keys and shapes say.

    proj: shapes of the projection, without "image_proj.". context_dim, layers: of K' and V'.
    """

    proj: Shapes
    context_dim: int
    layers: tuple[int, ...]
    has_lora: bool
    has_text_projection: bool


def base(found: Layout) -> AdapterSpec | None:
    """base, light, vit-G: one layout."""
    if not found.proj.keys() >= {"proj.weight", "norm.weight"}:
        return None
    rows, feature_dim = found.proj["proj.weight"]
    return AdapterSpec(
        family="base",
        feature="pooled",
        feature_dim=feature_dim,
        context_dim=found.context_dim,
        num_tokens=rows // found.context_dim,
        layers=found.layers,
        projection=LinearProjection(),
        has_text_projection=found.has_text_projection,
    )


def plus(found: Layout) -> AdapterSpec | None:
    """plus, plus-face, composition: one layout."""
    resampler = _perceiver(found.proj, "")
    if resampler is None or "latents" not in found.proj:
        return None
    return AdapterSpec(
        family="plus",
        feature="penultimate",
        feature_dim=found.proj["proj_in.weight"][1],
        context_dim=found.context_dim,
        num_tokens=found.proj["latents"][1],
        layers=found.layers,
        projection=resampler,
        has_text_projection=found.has_text_projection,
    )


def kolors_plus(found: Layout) -> AdapterSpec | None:
    """The resampler of plus, as wide as Kolors' text, on ViT-L."""
    spec = plus(found)
    if spec is None or spec.feature_dim != KOLORS_ENCODER.width:
        return None
    width = spec.projection.width if isinstance(spec.projection, ResamplerProjection) else None
    if not found.context_dim == width == KOLORS.resampler_width:
        return None
    return replace(spec, family="Kolors plus", feature_length=KOLORS_ENCODER.num_states, base=KOLORS.name)


def full_face(found: Layout) -> AdapterSpec | None:
    if not found.proj.keys() >= {"proj.0.weight", "proj.2.weight", "proj.3.weight"}:
        return None
    hidden, feature_dim = found.proj["proj.0.weight"]
    return AdapterSpec(
        family="full-face",
        feature="penultimate",
        feature_dim=feature_dim,
        context_dim=found.context_dim,
        num_tokens=FULL_FACE_TOKENS,
        layers=found.layers,
        projection=MLPProjection(hidden),
        has_text_projection=found.has_text_projection,
    )


def face_id(found: Layout) -> AdapterSpec | None:
    """FaceID: identities alone."""
    spec = _identities(found)
    return None if spec is None or _is_portrait(found, spec) else replace(spec, family="FaceID")


def face_id_portrait(found: Layout) -> AdapterSpec | None:
    """FaceID portrait: FaceID's keys, without a LoRA and with more tokens."""
    spec = _identities(found)
    return replace(spec, family="FaceID portrait") if spec is not None and _is_portrait(found, spec) else None


def _is_portrait(found: Layout, spec: AdapterSpec) -> bool:
    return not found.has_lora and spec.num_tokens != FACE_ID_TOKENS


def _identities(found: Layout) -> AdapterSpec | None:
    proj = found.proj
    if not (proj.keys() >= IDENTITY_KEYS and proj["proj.0.weight"][1] == IDENTITY_DIM):
        return None
    return AdapterSpec(
        family="",
        feature=None,
        feature_dim=0,
        context_dim=found.context_dim,
        num_tokens=proj["proj.2.weight"][0] // proj["norm.weight"][0],
        layers=found.layers,
        projection=IdentityProjection(proj["proj.0.weight"][0]),
        identity="normed",
        has_lora=found.has_lora,
        has_text_projection=found.has_text_projection,
    )


def face_id_unnorm(found: Layout) -> AdapterSpec | None:
    """FaceID portrait unnorm: the resampler of plus on an identity, as a sequence of one and not normed."""
    spec = plus(found)
    if spec is None or spec.feature_dim != IDENTITY_DIM:
        return None
    return replace(spec, family="FaceID portrait unnorm", feature=None, feature_dim=0, identity="raw")


def face_id_plus(found: Layout) -> AdapterSpec | None:
    """FaceID plus: the identity's tokens are queries on the hidden states of the face's picture."""
    spec = _identity_queries(found)
    if spec is None or found.proj["norm.weight"][0] != found.context_dim:
        return None
    return replace(spec, family="FaceID plus", face_crop=(find_base(found.context_dim) or SD15).face_crop)


def kolors_face_id_plus(found: Layout) -> AdapterSpec | None:
    """Kolors' FaceID plus: its tokens are as wide as the text before the base projects it."""
    spec = _identity_queries(found)
    if spec is None or found.proj["norm.weight"][0] == found.context_dim:
        return None
    return replace(
        spec,
        family="Kolors FaceID plus",
        base=KOLORS.name,
        identity="raw",
        token_dim=found.proj["norm.weight"][0],
        face_crop=KOLORS.face_crop,
        feature_length=KOLORS_ENCODER.num_states,
        zero_features=True,
    )


def _identity_queries(found: Layout) -> AdapterSpec | None:
    resampler, spec = _perceiver(found.proj, "perceiver_resampler."), _identities(found)
    if resampler is None or spec is None:
        return None
    return replace(
        spec,
        feature="penultimate",
        feature_dim=found.proj["perceiver_resampler.proj_in.weight"][1],
        projection=IdentityResamplerProjection(found.proj["proj.0.weight"][0], resampler),
        shortcut=True,  # v2's, and that of every published file but the first one
    )


def _perceiver(proj: Shapes, prefix: str) -> ResamplerProjection | None:
    """The perceiver layers under this prefix, or None where there are none."""
    if any(prefix + name not in proj for name in PERCEIVER_KEYS):
        return None
    depth = len({key.removeprefix(prefix).split(".")[1] for key in proj if key.startswith(f"{prefix}layers.")})
    return ResamplerProjection(
        width=proj[f"{prefix}proj_in.weight"][0],
        depth=depth,
        num_heads=proj[f"{prefix}layers.0.0.to_q.weight"][0] // HEAD_WIDTH,
        ff_width=proj[f"{prefix}layers.0.1.1.weight"][0],
    )
