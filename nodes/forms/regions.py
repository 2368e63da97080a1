"""Region and Regional Prompts: several references, each in its own part of the picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..models import Adapter
from ..prompts.protocol import Prompt
from ..regions import Region, apply_regions
from ..sockets import CATEGORY, AdapterType, Form, PromptType, RegionType
from .controls import COMBINE_INPUT, CONTROL_INPUTS, FACE_INPUTS, MODEL, PLACE_AND_TIME, controls

MAX_REGIONS = 50


class RegionNode(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptRegion",
            display_name="Region",
            category=CATEGORY,
            description="A part of the picture and the reference that it follows, for Regional Prompts.",
            search_aliases=["IPAdapter Regional Conditioning", "mask", "attention mask", "character", "characters"],
            inputs=[
                PromptType.Input("image_prompt", tooltip="What this part follows."),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="Where this part is, of any size, soft edges too; a batch gives each latent its own. Not "
                    "connected: the background, all that no other region covers.",
                ),
                *PLACE_AND_TIME,
                COMBINE_INPUT,
                io.Conditioning.Input(
                    "text", optional=True,
                    tooltip="A text for this part alone. Not connected: the text of Regional Prompts.",
                ),
                AdapterType.Input(
                    "adapter", optional=True,
                    tooltip="An adapter for this part alone. Not connected: the one of Regional Prompts.",
                ),
                *FACE_INPUTS,
                *CONTROL_INPUTS,
            ],
            outputs=[RegionType.Output(display_name="region")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image_prompt: Prompt, text: Any = None, adapter: Adapter | None = None, **settings: Any
    ) -> io.NodeOutput:
        return io.NodeOutput(Region(image_prompt, controls(**settings), text, adapter))


class RegionalPrompts(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.Autogrow.TemplatePrefix(
            RegionType.Input("region", tooltip="From Region."), prefix="region_", min=1, max=MAX_REGIONS
        )
        return io.Schema(
            node_id="ImagePromptRegions",
            display_name="Regional Prompts",
            category=CATEGORY,
            description="Makes a model follow several references, each in its own part of the picture, with a text of "
            "its own if it has one.",
            search_aliases=["ipadapter regional", "attention couple", "regions", "character", "characters", "masks"],
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                AdapterType.Input("adapter", tooltip="From Load IP-Adapter; it is loaded once for all regions."),
                io.Conditioning.Input(
                    "text", optional=True,
                    tooltip="The text of the whole picture; where a region has its own, only that one counts.",
                ),
                io.Autogrow.Input("regions", template=template, tooltip="As many as you like."),
            ],
            outputs=[
                io.Model.Output(),
                io.Conditioning.Output(display_name="positive", tooltip="The texts of all parts, for the sampler."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, adapter: Adapter, regions: dict[str, Region], text: Any = None) -> io.NodeOutput:
        found = [region for region in regions.values() if region is not None]
        return io.NodeOutput(*apply_regions(model, adapter, found, text))
