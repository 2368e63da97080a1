"""The families of adapters: one row each, with all that differs between them but the projection itself.

How a file tells its family is in `layouts`; what shapes cannot tell is resolved by `variants`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..method.spec import (
    AdapterSpec,
    Feature,
    Identity,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    Projection,
    ResamplerProjection,
)
from . import layouts
from .layouts import HEAD_WIDTH, Layout

IDENTITY_HIDDEN = 1024  # of the published identity projections
# Terms of the published files of a family; other people's files of the same layout may have others.
APACHE = "the published ones are Apache-2.0"
FACES = "the published ones are for research only, not for commercial use, as are insightface's face models"
KOLORS_TERMS = "the published one is free for research; commercial use needs a registration with its authors"
KOLORS_FACES = f"{KOLORS_TERMS}, and insightface's face models are for research only"


@dataclass(frozen=True)
class Dims:
    """What a new projection is made of. width, depth: of its resampler. feature_dim: width of what it reads."""

    feature_dim: int
    width: int
    depth: int

    @property
    def resampler(self) -> ResamplerProjection:
        return ResamplerProjection(self.width, self.depth, max(1, self.width // HEAD_WIDTH), 4 * self.width)


@dataclass(frozen=True)
class Training:
    """How a new adapter of a family is shaped.

    projection: made of the dims. num_tokens: as published; 0: one for each hidden state. lora_rank: of the LoRA that is
    trained beside; 0: none. width: of the resampler; "base": as published for the base, "context": the text's, None:
    there is none. shaped_by: what a training's settings may change, of num_tokens, width, depth and lora_rank.
    """

    projection: Callable[[Dims], Projection]
    num_tokens: int
    shaped_by: tuple[str, ...]
    lora_rank: int = 0
    width: str | None = None


@dataclass(frozen=True)
class Family:
    """read: the spec of a file's layout, or None. feature, identity: what it reads, as in a spec.

    terms: licence of the published files. options: fields of the spec that shapes cannot tell, and metadata does.
    variants: those fields' values by the name that people choose. training: None: the trainer does not train it.
    has_face_crop: it reads the face's picture as the base's row says.
    """

    name: str
    read: Callable[[Layout], AdapterSpec | None]
    feature: Feature | None
    identity: Identity | None = None
    terms: str = APACHE
    options: tuple[str, ...] = ()
    variants: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    training: Training | None = None
    has_face_crop: bool = False


# Specific before general: the first row that reads a layout is its family.
FAMILIES = (
    Family(
        "Kolors FaceID plus", layouts.kolors_face_id_plus, "penultimate", "raw",
        terms=KOLORS_FACES, options=("shortcut",), has_face_crop=True,
    ),
    Family(
        "FaceID plus", layouts.face_id_plus, "penultimate", "normed",
        terms=FACES, options=("shortcut",), has_face_crop=True,
        variants={"FaceID plus v1": {"shortcut": False}, "FaceID plus v2": {"shortcut": True}},
        training=Training(
            lambda dims: IdentityResamplerProjection(IDENTITY_HIDDEN, dims.resampler), num_tokens=4,
            shaped_by=("num_tokens", "depth", "lora_rank"), lora_rank=128, width="context",
        ),
    ),
    Family(
        "FaceID", layouts.face_id, None, "normed",
        terms=FACES,
        training=Training(
            lambda _: IdentityProjection(IDENTITY_HIDDEN), num_tokens=4,
            shaped_by=("num_tokens", "lora_rank"), lora_rank=128,
        ),
    ),
    Family("FaceID portrait", layouts.face_id_portrait, None, "normed", terms=FACES),
    Family("FaceID portrait unnorm", layouts.face_id_unnorm, None, "raw", terms=FACES),
    Family("Kolors plus", layouts.kolors_plus, "penultimate", terms=KOLORS_TERMS),
    Family(
        "full-face", layouts.full_face, "penultimate",
        options=("zero_features",),
        variants={"full-face, zero features": {"zero_features": True}},
        training=Training(lambda dims: MLPProjection(dims.feature_dim), num_tokens=0, shaped_by=()),
    ),
    Family(
        "plus", layouts.plus, "penultimate",
        training=Training(
            lambda dims: dims.resampler, num_tokens=16, shaped_by=("num_tokens", "width", "depth"), width="base",
        ),
    ),
    Family(
        "base", layouts.base, "pooled",
        training=Training(lambda _: LinearProjection(), num_tokens=4, shaped_by=("num_tokens",)),
    ),
)  # fmt: skip
BY_NAME = {family.name: family for family in FAMILIES}


def read_layout(found: Layout) -> AdapterSpec | None:
    """The spec of the first family that has this layout; None: of no known one."""
    return next((spec for family in FAMILIES if (spec := family.read(found)) is not None), None)
