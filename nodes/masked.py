"""An image prompt of several pictures on a model, each picture in its own part of the result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from .apply import apply_adapter
from .models import Adapter
from .prompts.picked import PickedPrompt
from .prompts.protocol import Prompt


def apply_in_masks(model: Any, adapter: Adapter, prompt: Prompt, masks: Tensor, settings: dict[str, Any]) -> Any:
    """A clone of MODEL that follows each of P pictures where its mask of [P, h, w] is.

    settings: what `apply_adapter` takes beside model, adapter and image prompt; a mask in them is replaced.
    Raises ValueError when there is not one mask for each picture.
    """
    masks = masks.reshape(-1, *masks.shape[-2:])
    for number in range(len(masks)):
        influence = replace(settings["influence"], mask=masks[number : number + 1])
        picked = PickedPrompt(prompt, number, len(masks))
        model = apply_adapter(model, adapter, picked, **settings | {"influence": influence})
    return model
