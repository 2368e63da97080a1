"""An adapter in words: what it is, what it needs, and under which terms it may be used."""

from __future__ import annotations

from collections.abc import Mapping

from ..facts.bases import base_name, base_of
from ..facts.encoders import encoder_name, encoder_of
from ..facts.families import BY_NAME
from ..facts.variants import variant_of
from ..method.spec import AdapterSpec


def licence(spec: AdapterSpec, metadata: Mapping[str, str]) -> str:
    """The licence that the file states, or what is known of the published files of its family."""
    stated = metadata.get("licence") or metadata.get("license") or metadata.get("modelspec.license")
    if stated:
        faces = "; insightface's face models are for non-commercial research only" if spec.identity else ""
        return f"{stated}{faces}"
    return f"not stated in the file; {BY_NAME[spec.family].terms}"


def needs(spec: AdapterSpec) -> list[str]:
    """What must be given to the adapter, beside a base model."""
    found = [] if spec.feature is None else [f"{encoder_name(spec)} ({spec.feature} features, {spec.feature_dim} wide)"]
    if spec.identity is not None:
        found.append(f"ArcFace identities of faces, {spec.identity}")
    if spec.face_crop is not None:
        kind = "aligned by its landmarks" if spec.face_crop.kind == "aligned" else "cut square around its box"
        found.append(f"the face's picture, {kind}, {spec.face_crop.size} px")
    if spec.token_dim not in (None, spec.context_dim) and not spec.has_text_projection:
        found.append(f"the base's own projection of text, {spec.token_dim} to {spec.context_dim}")
    return found


def headline(spec: AdapterSpec, metadata: Mapping[str, str]) -> str:
    """The shortest line: base, family, what it needs."""
    base = base_of(spec)
    wanted = ["faces"] if spec.identity else []
    if spec.feature is not None:
        is_known = encoder_of(spec) is not None
        wanted.append(encoder_name(spec).removeprefix("CLIP ") if is_known else f"a {spec.feature_dim}-wide encoder")
    name = base.name if base else f"{spec.context_dim}-wide text"
    return f"{name} · {family(spec, metadata)} · needs {', '.join(wanted)}"


def describe(spec: AdapterSpec, metadata: Mapping[str, str]) -> str:
    """One line: family, base, tokens, needs, licence where it restricts."""
    tokens = f"{spec.num_tokens} image tokens" + (" for each face" if spec.identity else "")
    parts = [f"{family(spec, metadata)} adapter for {base_name(spec)}", tokens, *needs(spec)]
    if spec.has_lora:
        parts.append("with a LoRA for the base")
    if spec.identity is not None:
        parts.append(f"licence: {licence(spec, metadata)}")
    return ", ".join(parts)


def family(spec: AdapterSpec, metadata: Mapping[str, str]) -> str:
    """The family's name; the metadata's own where it says more than the layout."""
    name = metadata.get("family", "")
    if name and name != spec.family:
        return f"{spec.family} ({name})"
    return variant_of(spec)
