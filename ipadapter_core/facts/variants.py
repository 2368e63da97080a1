"""What shapes cannot tell: variants that share one layout, named by the file's metadata or by the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..method.spec import AdapterSpec

AUTO = "auto"
# Variant, as people choose it: (the layout's family, the field of the spec, its value).
VARIANTS: dict[str, tuple[str, str, bool]] = {
    "FaceID plus v1": ("FaceID plus", "shortcut", False),
    "FaceID plus v2": ("FaceID plus", "shortcut", True),
    "full-face, zero features": ("full-face", "zero_features", True),
}
CHOICES = (AUTO, *VARIANTS)
# The same fields in a file's metadata: (key, field of the spec), each "true" or "false".
METADATA = (("shortcut", "shortcut"), ("zero_features", "zero_features"))


def told(spec: AdapterSpec, metadata: Mapping[str, str], variant: str = AUTO) -> AdapterSpec:
    """The spec with what the metadata say, and with the user's choice where they are silent.

    Where nobody says anything, FaceID plus is v2 (every published file but one), and full-face's "no picture" is a
    picture of zeros, as in the reference's package.
    Raises ValueError when the choice belongs to another family, or metadata and choice contradict each other.
    """
    said = {}
    for key, field in METADATA:
        if key in metadata:
            if metadata[key] not in ("true", "false"):
                raise ValueError(f"the adapter's metadata has {key} = {metadata[key]!r}, expected true or false")
            said[field] = metadata[key] == "true"
    if variant != AUTO:
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(CHOICES)}")
        family, field, value = VARIANTS[variant]
        if spec.family != family:
            raise ValueError(f"the variant {variant!r} is of {family} adapters, this one is {spec.family}: choose auto")
        if said.get(field, value) != value:
            raise ValueError(f"the adapter's metadata contradict the variant {variant!r}: choose auto")
        said[field] = value
    return replace(spec, **said)  # type: ignore[arg-type]
