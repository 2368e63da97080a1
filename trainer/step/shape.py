"""The shape of a new adapter, from the config, the base and the image encoder; 0 in a config is the published value."""

from __future__ import annotations

from ipadapter_core import AdapterSpec, Base, Encoder, find_base
from ipadapter_core.facts.bases import SD15
from ipadapter_core.facts.families import Dims
from ipadapter_core.facts.layouts import HEAD_WIDTH

from ..base.encoder import encoder_facts
from ..base.sites import Sites
from ..settings.config import AdapterConfig, Config
from ..settings.families import lora_rank, trained_family

DEPTH = 4  # of the published resamplers


def encoder_shape(config: Config) -> Encoder | None:
    """The image encoder's facts; None for a family that reads none."""
    if trained_family(config.adapter.family)[0].feature is None:
        return None
    return encoder_facts(config.model.encoder, config.model.encoder_architecture)


def adapter_spec(config: AdapterConfig, sites: Sites, encoder: Encoder | None) -> AdapterSpec:
    """The shape of a new adapter on a base with these sites and this encoder."""
    family, training = trained_family(config.family)
    context_dim = sites.context_dim
    base = find_base(context_dim)
    feature_dim = encoder.feature_dim(family.feature) if encoder and family.feature else 0
    width = _resampler_width(config, training.width, context_dim, base)
    return AdapterSpec(
        family=config.family,
        feature=family.feature,
        feature_dim=feature_dim,
        context_dim=context_dim,
        num_tokens=config.num_tokens or training.num_tokens or (encoder.num_states if encoder else 0),
        layers=tuple(layer.index for layer in sites.layers),
        projection=training.projection(Dims(feature_dim, width, config.depth or DEPTH)),
        identity=family.identity,
        face_crop=(base or SD15).face_crop if family.has_face_crop else None,
        shortcut="shortcut" in family.options and config.shortcut,
        has_lora=bool(lora_rank(config.family, config.lora_rank)),
    )


def _resampler_width(config: AdapterConfig, kind: str | None, context_dim: int, base: Base | None) -> int:
    if kind == "context":  # the queries are tokens, so the resampler is as wide as they are
        return context_dim
    if kind is None:
        return 0
    width = config.width or (base.resampler_width if base else -(-context_dim // HEAD_WIDTH) * HEAD_WIDTH)
    if width % HEAD_WIDTH:
        raise ValueError(
            f"adapter.width = {width} should be a multiple of {HEAD_WIDTH}, the width of an attention head"
        )
    return width
