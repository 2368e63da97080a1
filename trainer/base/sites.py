"""Where image attention acts in a base, and what an adapter's weights there look like.

Shapes: D width of a layer, C context width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diffusers import UNet2DConditionModel
from torch import Tensor

from ipadapter_core import MATRICES, Site, attention_names, unet_sites

Place = tuple[int, str]  # checkpoint index of an attention layer, and one of MATRICES


@dataclass(frozen=True, eq=False)
class Sites:
    """What a new adapter needs to know of its base.

    context_dim: C. layers: that get K' and V', in checkpoint order. text: the base's own weights of text K and V,
    [D, C] each, by checkpoint index: what K' and V' start from (section 3.2.2). matrices: (D, C) of the matrices that
    a LoRA changes, by place: self-attention's (even index) and cross-attention's (odd).
    """

    context_dim: int
    layers: tuple[Site, ...]
    text: Mapping[int, tuple[Tensor, Tensor]]
    matrices: Mapping[Place, tuple[int, int]]

    @property
    def widths(self) -> dict[int, int]:
        """D by checkpoint index."""
        return {index: k.shape[0] for index, (k, _) in self.text.items()}


def sites_of(unet: UNet2DConditionModel) -> Sites:
    """The sites of a UNet. Raises ValueError when it has no cross-attention layers."""
    layers = unet_layers(unet)
    attention = {layer.index: unet.get_submodule(layer.diffusers) for layer in layers}
    return Sites(
        context_dim=unet.config.cross_attention_dim,
        layers=tuple(layers),
        text={index: (layer.to_k.weight.detach(), layer.to_v.weight.detach()) for index, layer in attention.items()},
        matrices=_matrices(unet),
    )


def unet_layers(unet: UNet2DConditionModel) -> list[Site]:
    """The cross-attention layers of a UNet in checkpoint order. Raises ValueError when there are none."""
    sites = unet_sites((name for name, _ in unet.named_modules()), unet.config.layers_per_block)
    if not sites:
        raise ValueError(
            "the base has no cross-attention layers, so an image prompt has nowhere to act: use SD1.5, SD2 or SDXL"
        )
    return sites


def _matrices(unet: UNet2DConditionModel) -> dict[Place, tuple[int, int]]:
    shapes = {}
    for index, name in attention_names(unet_layers(unet), "diffusers").items():
        attention = unet.get_submodule(name)
        for matrix in MATRICES:
            found = attention.get_submodule(MATRICES[matrix])
            shapes[index, matrix] = (found.out_features, found.in_features)
    return shapes
