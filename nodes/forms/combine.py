"""Combine Image Prompts: several as one, before any adapter reads them."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..prompts.combined import METHODS, CombinedPrompt
from ..sockets import CATEGORY, Form, PromptType


class CombineImagePrompts(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptCombine",
            display_name="Combine Image Prompts",
            category=CATEGORY,
            description="Makes one image prompt of two: both, their mean, a mixture, or one without the other.",
            search_aliases=["IPAdapter Combine Embeds", "average references", "negative image prompt"],
            inputs=[
                PromptType.Input("first", tooltip="An image prompt, also one that was combined before."),
                PromptType.Input("second", tooltip="Another one, of the same encoder."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="concatenate",
                    tooltip="'concatenate': all pictures of both, side by side. 'average': one picture, the mean of "
                    "all. 'weighted': a mixture. 'subtract': the first without what the second shows.",
                ),
                io.Float.Input(
                    "amount",
                    default=0.5,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="For 'weighted': how much of the second, 0 is the first alone, 1 the second alone. For "
                    "'subtract': how much of the second is taken away, 0 is nothing.",
                ),
            ],
            outputs=[PromptType.Output(display_name="image prompt")],
        )

    @classmethod
    def execute(cls, first: Any, second: Any, method: str, amount: float) -> io.NodeOutput:
        return io.NodeOutput(CombinedPrompt((first, second), method, amount))
