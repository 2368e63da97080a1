"""Layer Weights: which layers follow a picture, and how much."""

from __future__ import annotations

from comfy_api.latest import io

from ...ipadapter_core import LAYER_WEIGHTS, Layers
from ..sockets import CATEGORY, Form, LayersType


class LayerWeightsNode(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptLayers",
            display_name="Layer Weights",
            category=CATEGORY,
            description="Says which layers of the model follow a picture, and how much: by a preset, or one by one.",
            search_aliases=["IPAdapter Mad Scientist", "weight type", "style", "style transfer", "composition"],
            inputs=[
                io.Combo.Input(
                    "preset", options=list(LAYER_WEIGHTS), default=Layers.preset,
                    tooltip="'all' (neutral) is the training's own. 'precise' presets also push away what the picture "
                    "shows besides its style, or besides its composition.",
                ),
                io.Float.Input(
                    "composition", default=Layers.composition, min=-1.0, max=3.0, step=0.05,
                    tooltip="For 'style + composition' and the strong one: how much the layers of composition count "
                    "beside those of style, as a factor of the weight. Neutral: 1.",
                ),
                io.Float.Input(
                    "boost", default=Layers.boost, min=-1.0, max=3.0, step=0.05,
                    tooltip="For 'style precise' and 'composition precise': how much is pushed away, as a factor of "
                    "the weight. Neutral: 1.",
                ),
                io.String.Input(
                    "by_layer", default=Layers.text, multiline=True,
                    tooltip="Weights of single layers in place of the preset's, as in '3: 0.5, 6-8: 1, up: 0.2'. They "
                    "are counted from the input to the output: 0 to 15 in SD1.5, 0 to 10 in SDXL; down, middle and up "
                    "name a part. What is not named gets nothing. Neutral: empty.",
                ),
            ],
            outputs=[LayersType.Output(display_name="layer weights")],
        )  # fmt: skip

    @classmethod
    def execute(cls, preset: str, composition: float, boost: float, by_layer: str) -> io.NodeOutput:
        return io.NodeOutput(Layers(preset, composition, boost, by_layer))
