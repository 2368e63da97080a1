"""What an older node that applies an adapter is asked for, and what the adapter reads of it.

Shapes: P pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from torch import Tensor

from ...ipadapter_core import V_ONLY, Curve, Given, Influence, Placement, merged
from . import faces
from .features import checked, encode, encoder_size, enhanced, no_picture
from .inputs import CONCAT
from .layers import STYLE_PRECISE, Wanted
from .sockets import Models

OLDER = Placement(beyond="last", grid="guessed", windows="AnimateDiff")


@dataclass(frozen=True, eq=False)
class Asked:
    """Inputs by their names; those that are not given have values that change nothing.

    weight: a number, or one for each frame. weight_faceidv2, style_boost, composition_boost: None: by the weight.
    """

    image: Tensor | None = None
    image_style: Tensor | None = None
    image_composition: Tensor | None = None
    image_negative: Tensor | None = None
    weight: float | Sequence[float] = 1.0
    weight_style: float | Sequence[float] = 1.0
    weight_composition: float = 1.0
    weight_faceidv2: float | None = None
    weight_kolors: float = 1.0
    style_boost: float | None = None
    composition_boost: float | None = None
    expand_style: bool = False
    weight_type: str = "linear"
    combine_embeds: str = CONCAT
    start_at: float = 0.0
    end_at: float = 1.0
    embeds_scaling: str = V_ONLY
    layer_weights: str = ""
    enhance_tiles: int = 1
    enhance_ratio: float = 1.0
    encode_batch_size: int = 0
    sharpening: float = 0.0
    attn_mask: Tensor | None = None
    clip_vision: Any = None
    insightface: Any = None
    ipadapter_params: Any = None
    pos_embed: Tensor | None = None
    neg_embed: Tensor | None = None
    exact: bool = False

    @staticmethod
    def of(inputs: dict[str, Any]) -> Asked:
        """From inputs by name; None is as good as nothing. Raises TypeError for a name that no older node has."""
        if unknown := inputs.keys() - {one.name for one in fields(Asked)}:
            raise TypeError(f"the older nodes that apply an adapter have no input {', '.join(sorted(unknown))}")
        return Asked(**{name: value for name, value in inputs.items() if value is not None})

    def picture(self, name: str = "image") -> Tensor:
        """Raises ValueError where it was not given."""
        image: Tensor | None = getattr(self, name)
        if image is None:
            raise ValueError(f"there is no picture ({name}): connect one")
        return image

    @property
    def wanted(self) -> Wanted:
        """What decides the weights of the layers."""
        boost = self.style_boost if self.weight_type == STYLE_PRECISE else self.composition_boost
        return Wanted(self.weight_type, boost=boost, text=self.layer_weights, middle=self.exact)

    def influence(self, layers: dict[int, float], frames: tuple[float, ...] = ()) -> Influence:
        """The inputs that say when and where, with the weights of the layers."""
        return Influence(
            layers=layers,
            curve=Curve.window(self.start_at, self.end_at),
            mask=self.attn_mask,
            frames=frames,
            scaling=self.embeds_scaling,
            placement=Placement() if self.exact else OLDER,
        )


class Read(NamedTuple):
    """What an adapter reads of pictures, what stands for none, and the faces that were found (None: not asked for)."""

    inputs: Given
    unconditional: Given
    crops: Tensor | None = None

    def combined(self, how: str, exact: bool) -> Read:
        """One picture made of several, where `how` asks for it."""
        if how == CONCAT or self.inputs.rows == 1:
            return self
        return self._replace(inputs=combined(self.inputs, how, exact), unconditional=self.unconditional.rows_for(1))


def read(models: Models, asked: Asked, image: Tensor) -> Read:
    """What the adapter reads of pictures [P, H, W, C]. Raises ValueError for what is missing or does not fit."""
    spec, size = models.adapter.spec, encoder_size(models.adapter.spec)
    identities = crops = None
    if spec.identity is not None:
        is_raw = spec.family == "FaceID portrait unnorm"
        identities, crops = faces.found(models.faces(), image, faces.crop_size(spec), is_raw)
    if spec.feature is None:
        given = Given(None, identities)
        return Read(given, no_picture(spec, given, None, asked.exact), crops)
    encoder, batch = models.encoder(), asked.encode_batch_size
    if crops is not None:
        features = encode(encoder, crops, spec.feature, size, batch)
    else:
        tiles, ratio = asked.enhance_tiles, asked.enhance_ratio
        features = enhanced(encoder, image, spec.feature, size, tiles, ratio, batch)
    given = Given(checked(spec, models.adapter.name, features), identities)
    nothing = no_picture(spec, given, encoder, asked.exact)
    if asked.image_negative is not None:
        negative = encode(encoder, asked.image_negative, spec.feature, size, batch)
        zeros = None if identities is None else identities.new_zeros(len(negative), identities.shape[1])
        nothing = Given(negative, zeros)
    return Read(given, nothing, crops)


def combined(given: Given, how: str, exact: bool) -> Given:
    """One picture's features of several, as the older nodes called the ways.

    Their 'norm average' divides by the norm over the pictures, not over the features, unless `exact`.
    """
    if how == CONCAT:
        return given
    if how == "norm average" and not exact:
        return Given(*(None if x is None else (x / x.norm(dim=0, keepdim=True)).mean(0, keepdim=True) for x in given))
    return merged(given, how)
