"""The older loaders: an adapter by its file, or by a preset with all that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.sd

from ...ipadapter_core import read_weights
from ..encoders import load_encoder
from ..hosts import host_of
from ..hosts.fit import base_of_model
from ..prompts.insight import face_analysis
from ..sockets import say_on
from .find import find_adapter, find_encoder, find_lora
from .presets import preset_of
from .sockets import adapter_from, state_dict_of

FACE_MODEL = "buffalo_l"


def load_file(ipadapter_file: str) -> tuple[Mapping[str, Any]]:
    """An adapter file as a state dict. Raises ValueError when it is no adapter."""
    return (state_dict_of(ipadapter_file),)


def load_faces(provider: str | None = None, model_name: str | None = None) -> tuple[Any]:
    """insightface's FaceAnalysis. Raises ValueError that names the folder where it is missing."""
    return (face_analysis(model_name or FACE_MODEL, provider or "CPU"),)


def load_preset(
    model: Any, preset: str, lora_strength: float | None = 0.0, provider: str | None = "CPU",
    ipadapter: Mapping[str, Any] | None = None, unique_id: str | None = None,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """(MODEL, with the preset's LoRA if it has one; adapter, encoder and face model as IPADAPTER carries them).

    ipadapter: of another loader, whose face model is used again. unique_id: of the node that says what was chosen.
    Raises ValueError that names what was looked for where something is missing, or where two files fit equally.
    """
    wanted = preset_of(preset)
    _, sites = host_of(model)
    base = base_of_model(model, sites)
    found = find_adapter(wanted, preset, base, type(model.model).__name__)
    # Adapters that read identities alone get it too, for nodes that ask for one.
    encoder = find_encoder(wanted.encoder, is_needed=wanted.feature_dim > 0)
    said = [f"{what}: {one.name} ({one.why})" for what, one in (("adapter", found), ("image encoder", encoder)) if one]
    state_dict = state_dict_of(found.name)
    if wanted.has_lora and lora_strength:
        assert base is not None
        lora = find_lora(wanted, base, adapter_from(state_dict, found.name), model)
        model, _ = comfy.sd.load_lora_for_models(model, None, read_weights(lora.path).tensors, lora_strength, 0.0)
        said.append(f"LoRA: {lora.name} ({lora.why}) at {lora_strength:g}")
    faces = _faces(provider or "CPU", ipadapter) if wanted.has_faces else dict.fromkeys(("provider", "model"))
    if wanted.has_faces:
        said.append(f"face model: {FACE_MODEL}")
    say_on(unique_id, "\n".join(said))
    return model, {
        "ipadapter": {"file": str(found.path), "model": state_dict},
        "clipvision": {
            "file": None if encoder is None else str(encoder.path),
            "model": None if encoder is None else load_encoder(encoder.name),
        },
        "insightface": faces,
    }


def _faces(provider: str, ipadapter: Mapping[str, Any] | None) -> dict[str, Any]:
    """A face model, the one of another loader where it runs on the same provider."""
    held = (ipadapter or {}).get("insightface") or {}
    if held.get("model") is not None and held.get("provider") == provider:
        return dict(held)
    return {"provider": provider, "model": face_analysis(FACE_MODEL, provider)}
