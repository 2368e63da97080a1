"""An adapter in words: what it is, what it needs, and under which terms it may be used."""

from __future__ import annotations

from collections.abc import Mapping

from ..method.spec import KOLORS, AdapterSpec

# Terms of the published files of a family; other people's files of the same layout may have others.
FACES = "the published ones are for research only, not for commercial use, as are insightface's face models"
KOLORS_TERMS = "the published one is free for research; commercial use needs a registration with its authors"
OTHERS = "the published ones are Apache-2.0"
# Where the published encoders are.
ENCODER_FILES = {
    "CLIP ViT-H/14": "models/image_encoder of h94/IP-Adapter, or open_clip's ViT-H-14/laion2b_s32b_b79k",
    "CLIP ViT-bigG/14": "sdxl_models/image_encoder of h94/IP-Adapter, or open_clip's ViT-bigG-14/laion2b_s39b_b160k",
    "CLIP ViT-L/14": "openai/clip-vit-large-patch14, or open_clip's ViT-L-14-quickgelu/openai",
    "CLIP ViT-L/14-336": "openai/clip-vit-large-patch14-336, or open_clip's ViT-L-14-336-quickgelu/openai",
}


def licence(spec: AdapterSpec, metadata: Mapping[str, str]) -> str:
    """The licence that the file states, or what is known of the published files of its family."""
    stated = metadata.get("licence") or metadata.get("license") or metadata.get("modelspec.license")
    if stated:
        faces = "; insightface's face models are for non-commercial research only" if spec.identity else ""
        return f"{stated}{faces}"
    if spec.identity is not None:
        terms = f"{KOLORS_TERMS}, and insightface's face models are for research only" if _is_kolors(spec) else FACES
    else:
        terms = KOLORS_TERMS if _is_kolors(spec) else OTHERS
    return f"not stated in the file; {terms}"


def needs(spec: AdapterSpec) -> list[str]:
    """What must be given to the adapter, beside a base model."""
    found = [] if spec.feature is None else [f"{spec.encoder} ({spec.feature} features, {spec.feature_dim} wide)"]
    if spec.identity is not None:
        found.append(f"ArcFace identities of faces, {spec.identity}")
    if spec.face_crop is not None:
        kind = "aligned by its landmarks" if spec.face_crop.kind == "aligned" else "cut square around its box"
        found.append(f"the face's picture, {kind}, {spec.face_crop.size} px")
    if spec.token_dim not in (None, spec.context_dim) and not spec.has_text_projection:
        found.append(f"the base's own projection of text, {spec.token_dim} to {spec.context_dim}")
    return found


def describe(spec: AdapterSpec, metadata: Mapping[str, str]) -> str:
    """One line: family, base, tokens, needs, licence where it restricts."""
    tokens = f"{spec.num_tokens} image tokens" + (" for each face" if spec.identity else "")
    parts = [f"{family(spec, metadata)} adapter for {spec.base}", tokens, *needs(spec)]
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
    return f"FaceID plus {'v2' if spec.shortcut else 'v1'}" if spec.family == "FaceID plus" else spec.family


def _is_kolors(spec: AdapterSpec) -> bool:
    return spec.base == KOLORS
