"""Record Attention and Image Attention Map: where each reference acts in the picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..attention_map import attention_map, normalised, shown
from ..hosts import host_of
from ..record import Record, with_record
from ..sockets import CATEGORY, Form, RecordType, say
from .controls import MODEL

SMALLEST = 256  # pixels of the preview: the page shows small pictures as small as they are


class RecordAttention(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptRecord",
            display_name="Record Attention",
            category=CATEGORY,
            description="Records where image prompts act while the model is sampled, for Image Attention Map.",
            search_aliases=["attention map", "heat map", "heatmap", "daam", "explain"],
            inputs=[io.Model.Input("model", tooltip=MODEL + " Before or after Apply IP-Adapter.")],
            outputs=[
                io.Model.Output(tooltip="For the sampler. Its pictures do not change."),
                RecordType.Output(display_name="record", tooltip="For Image Attention Map: of the sampler's last run."),
            ],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        return io.NodeOutput(*with_record(model, host_of(model)[1]))


class ImageAttentionMap(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptAttentionMap",
            display_name="Image Attention Map",
            category=CATEGORY,
            description="Shows where a reference acts in the picture, by layer and by step.",
            search_aliases=["attention map", "heat map", "heatmap", "daam", "explain"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                RecordType.Input("record", tooltip="From Record Attention, whose model the sampler has."),
                io.Latent.Input("latent", tooltip="From that sampler, so that the map is made after it ran."),
                io.Int.Input(
                    "reference", default=0, min=0, max=999,
                    tooltip="Which image prompt, in the order of Apply IP-Adapter: 0 (neutral) is the first.",
                ),
                io.String.Input(
                    "layers", default="",
                    tooltip="Which layers: attention modules in forward order, from 0, as in '3, 6-8', or down, "
                    "middle, up, with commas between them. Neutral: nothing, all layers.",
                ),
                io.Float.Input(
                    "start_percent", default=0.0, min=0.0, max=1.0, step=0.01,
                    tooltip="From when in the sampling, 0 to 1. Neutral: 0.",
                ),
                io.Float.Input(
                    "end_percent", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Until when in the sampling, 0 to 1. Neutral: 1.",
                ),
                io.Boolean.Input(
                    "normalise", default=True,
                    tooltip="Stretches each map to 0 to 1, so that differences are seen. Off: the shares themselves, "
                    "0 (text alone) to 1 (picture alone), which can be compared.",
                ),
                io.Image.Input(
                    "picture", optional=True,
                    tooltip="The decoded latent, to lay the map over it. Neutral: not connected, the map alone.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="heat map"),
                io.Mask.Output(display_name="map", tooltip="The values, at the latent's size: a mask for Apply."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, record: Record, latent: dict[str, Any], reference: int, layers: str, start_percent: float,
        end_percent: float, normalise: bool, picture: Tensor | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        found = attention_map(record.of(latent["samples"]), reference, layers, start_percent, end_percent)
        say(str(found))
        values = normalised(found.shares) if normalise else found.shares
        image = shown(values, picture)
        times = max(1, SMALLEST // image.shape[1])
        preview = image.repeat_interleave(times, 1).repeat_interleave(times, 2)
        return io.NodeOutput(image, values, ui=ui.PreviewImage(preview, cls=cls))
