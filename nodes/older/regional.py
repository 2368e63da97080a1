"""The older nodes for regions: parameters of adapters as lists, one entry for each region."""

from __future__ import annotations

from typing import Any

import node_helpers
from torch import Tensor

Params = dict[str, list[Any]]
NAMES = ("image", "attn_mask", "weight", "weight_type", "start_at", "end_at")


def conditioning(
    image: Tensor, image_weight: float | None = None, prompt_weight: float | None = None,
    weight_type: str | None = None, start_at: float | None = None, end_at: float | None = None,
    mask: Tensor | None = None, positive: Any = None, negative: Any = None,
) -> tuple[Params, Any, Any]:  # fmt: skip
    """(parameters of one region, its text, its negative text); the texts count within the mask, if there is one."""
    strength = 1.0 if prompt_weight is None else prompt_weight
    values = (
        image, mask, 1.0 if image_weight is None else image_weight, weight_type or "linear",
        0.0 if start_at is None else start_at, 1.0 if end_at is None else end_at,
    )  # fmt: skip
    params = {name: [value] for name, value in zip(NAMES, values)}
    return params, *(_at(text, mask, strength) for text in (positive, negative))


def _at(text: Any, mask: Tensor | None, strength: float) -> Any:
    if text is None or mask is None:
        return text
    values = {"mask": mask, "mask_strength": strength, "set_area_to_bounds": False}
    return node_helpers.conditioning_set_values(text, values)


def combine(
    params_1: Params, params_2: Params | None = None, params_3: Params | None = None, params_4: Params | None = None,
    params_5: Params | None = None,
) -> tuple[Params]:  # fmt: skip
    """The regions of all, in their order."""
    parts = [part for part in (params_1, params_2, params_3, params_4, params_5) if part is not None]
    return ({name: [value for part in parts for value in part[name]] for name in NAMES},)
