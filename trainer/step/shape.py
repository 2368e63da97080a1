"""The shape of a new adapter, from the config, the base and the image encoder; 0 in a config is the published value."""

from __future__ import annotations

from diffusers import UNet2DConditionModel

from ipadapter_core import (
    AdapterSpec,
    FaceCrop,
    IdentityProjection,
    IdentityResamplerProjection,
    LinearProjection,
    MLPProjection,
    ResamplerProjection,
)
from ipadapter_core.method.spec import Projection

from ..base.attention import unet_layers
from ..base.encoder import EncoderShape, shape_of
from ..settings.config import AdapterConfig, Config
from ..settings.families import FAMILIES, lora_rank

# Width of the published resamplers, by context width; depth 4, feed-forward x4. Other bases: their context.
RESAMPLER_WIDTH = {768: 768, 1024: 1024, 2048: 1280}
HEAD_WIDTH = 64
IDENTITY_HIDDEN = 1024  # of the published identity projections
SDXL_DIM = 2048  # of its text; the published FaceID plus has larger crops there


def encoder_shape(config: Config) -> EncoderShape | None:
    """The shape of the image encoder; None for a family that reads none."""
    if FAMILIES[config.adapter.family].feature is None:
        return None
    return shape_of(config.model.encoder, config.model.encoder_architecture)


def adapter_spec(config: AdapterConfig, unet: UNet2DConditionModel, encoder: EncoderShape | None) -> AdapterSpec:
    """The shape of a new adapter on this base and encoder. Raises ValueError for a base without cross-attention."""
    family, context_dim = FAMILIES[config.family], unet.config.cross_attention_dim
    feature_dim = encoder.feature_dim(family.feature) if encoder and family.feature else 0
    num_states = (encoder.image_size // encoder.patch_size) ** 2 + 1 if encoder else 0
    is_face_plus = config.family == "FaceID plus"
    crop = FaceCrop("aligned", 256 if context_dim == SDXL_DIM else 224)
    return AdapterSpec(
        family=config.family,
        feature=family.feature,
        feature_dim=feature_dim,
        context_dim=context_dim,
        num_tokens=config.num_tokens or family.num_tokens or num_states,
        layers=tuple(layer.index for layer in unet_layers(unet)),
        projection=_projection(config, context_dim, feature_dim),
        identity=family.identity,
        face_crop=crop if is_face_plus else None,
        shortcut=is_face_plus and config.shortcut,
        has_lora=bool(lora_rank(config)),
    )


def _projection(config: AdapterConfig, context_dim: int, feature_dim: int) -> Projection:
    if config.family == "full-face":
        return MLPProjection(feature_dim)
    if config.family == "FaceID":
        return IdentityProjection(IDENTITY_HIDDEN)
    if config.family == "FaceID plus":  # the queries are tokens, so the resampler is as wide as they are
        return IdentityResamplerProjection(IDENTITY_HIDDEN, _resampler(config, context_dim))
    if config.family == "plus":
        width = config.width or RESAMPLER_WIDTH.get(context_dim, -(-context_dim // HEAD_WIDTH) * HEAD_WIDTH)
        if width % HEAD_WIDTH:
            raise ValueError(
                f"adapter.width = {width} should be a multiple of {HEAD_WIDTH}, the width of an attention head"
            )
        return _resampler(config, width)
    return LinearProjection()


def _resampler(config: AdapterConfig, width: int) -> ResamplerProjection:
    return ResamplerProjection(width, config.depth or 4, max(1, width // HEAD_WIDTH), 4 * width)
