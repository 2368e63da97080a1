"""How the weight acts on K' and V'.

The paper's scale is a factor of what the picture's attention gives, which is a factor of V' ("V only"). The others are
known from the most used ComfyUI pack: a weight on K' too makes the attention over the picture's tokens flatter or
sharper, and the C penalty weakens layers narrower than 1280.

Shapes: T image tokens of all pictures of a row, D width of a layer.
"""

from __future__ import annotations

from torch import Tensor

V_ONLY, K_AND_V, K_AND_V_PENALTY, K_AND_MEAN_V_PENALTY = SCALINGS = (
    "V only",
    "K+V",
    "K+V w/ C penalty",
    "K+mean(V) w/ C penalty",
)
FULL_WIDTH = 1280  # the width of a layer that has no penalty


def scaled(k: Tensor, v: Tensor, weight: float | Tensor, scaling: str, num_pictures: int = 1) -> tuple[Tensor, Tensor]:
    """K' and V' [..., T, D] with the weight in them.

    weight: a number, or a tensor that goes with [..., T, 1]. num_pictures: whose tokens lie one after another in T;
    the mean of V' is that of each picture's own. Raises ValueError for an unknown name.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"unknown embeds scaling {scaling!r}: choose one of {', '.join(SCALINGS)}")
    if scaling == V_ONLY:
        return k, v * weight
    if scaling == K_AND_V:
        return k * weight, v * weight
    penalised = weight * (k.shape[-1] / FULL_WIDTH)
    if scaling == K_AND_V_PENALTY:
        return k * penalised, v * penalised
    by_picture = v.reshape(*v.shape[:-2], num_pictures, -1, v.shape[-1])
    mean = by_picture.mean(-2, keepdim=True).expand_as(by_picture).flatten(-3, -2)
    return k * penalised, (v - mean) + mean * penalised
