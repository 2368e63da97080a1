"""Weights over Frames: a weight for each frame of a video."""

from __future__ import annotations

from comfy_api.latest import io

from ...ipadapter_core import EASINGS, frame_weights
from ..sockets import CATEGORY, Form


class FrameWeights(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptFrameWeights",
            display_name="Weights over Frames",
            category=CATEGORY,
            description="Makes a list of weights from keyframes: link it to a weight for one per frame, or to "
            "curve_values for a curve over the sampling.",
            search_aliases=["IPAdapter Weights", "keyframes", "schedule", "animate", "float list"],
            inputs=[
                io.String.Input(
                    "keyframes", default="0: 0, 15: 1", multiline=True,
                    tooltip="Frame and weight, frames counted from 0. Before the first and after the last one its "
                    "weight stays.",
                ),
                io.Int.Input("frames", default=16, min=1, max=4096, tooltip="How many weights the list has."),
                io.Combo.Input(
                    "easing", options=list(EASINGS), default="linear",
                    tooltip="How the weight goes from one keyframe to the next; 'hold' stays until it is reached.",
                ),
            ],
            outputs=[
                io.Float.Output(display_name="weights", tooltip="One list, not one output for each frame."),
                io.Int.Output(display_name="frames"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, keyframes: str, frames: int, easing: str) -> io.NodeOutput:
        return io.NodeOutput(frame_weights(keyframes, frames, easing), frames)
