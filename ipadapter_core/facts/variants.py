"""What shapes cannot tell: fields of a spec that a file's metadata or the user name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..method.spec import AdapterSpec
from .families import BY_NAME, FAMILIES

AUTO = "auto"
VARIANTS = (AUTO, *(name for family in FAMILIES for name in family.variants))


def resolve_variant(spec: AdapterSpec, metadata: Mapping[str, str], variant: str = AUTO) -> AdapterSpec:
    """The spec with what the metadata say, and with the user's choice where they are silent.

    Where nobody says anything, FaceID plus is v2 (every published file but one), and full-face's "no picture" is a
    picture of zeros, as in the reference's package.
    Raises ValueError when the choice belongs to another family, or metadata and choice contradict each other.
    """
    family = BY_NAME[spec.family]
    said = {}
    for field in family.options:
        if field in metadata:
            if metadata[field] not in ("true", "false"):
                raise ValueError(f"the adapter's metadata has {field} = {metadata[field]!r}, expected true or false")
            said[field] = metadata[field] == "true"
    if variant != AUTO:
        chosen = _fields_of(variant, spec)
        if any(said.get(field, value) != value for field, value in chosen.items()):
            raise ValueError(f"the adapter's metadata contradict the variant {variant!r}: choose auto")
        said |= chosen
    return replace(spec, **said)  # type: ignore[arg-type]


def _fields_of(variant: str, spec: AdapterSpec) -> Mapping[str, bool]:
    owner = next((family for family in FAMILIES if variant in family.variants), None)
    if owner is None:
        raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    if spec.family != owner.name:
        raise ValueError(f"the variant {variant!r} is of {owner.name} adapters, this one is {spec.family}: choose auto")
    return owner.variants[variant]


def variant_of(spec: AdapterSpec) -> str:
    """The family's name, or that of its variant where a name is known for it."""
    for name, fields in BY_NAME[spec.family].variants.items():
        if all(getattr(spec, field) == value for field, value in fields.items()):
            return name
    return spec.family


def option_metadata(spec: AdapterSpec) -> dict[str, str]:
    """The metadata that `resolve_variant` reads, for a file with this spec."""
    return {field: str(getattr(spec, field)).lower() for field in BY_NAME[spec.family].options}
