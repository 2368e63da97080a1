"""Encode Image Tiles: pictures of any proportions, seen in tiles."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...ipadapter_core.method.tiles import MAX_TILES, tiling
from ..prompts.pictures import ImagePrompt, encode
from ..prompts.tiled import TiledPrompt, masks_of, tile_views
from ..sockets import CATEGORY, Form, PromptType, shown
from .encode import ENCODE_INPUTS, VIEW_INPUTS


class EncodeImageTiles(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptTiles",
            display_name="Encode Image Tiles",
            category=CATEGORY,
            description="Turns pictures into image prompts by tiles, so that the encoder sees all of a wide or tall "
            "picture, and its detail: as one image prompt, and as one picture for each tile with its place.",
            search_aliases=["IPAdapter Tiled", "clip vision enhancer", "panorama reference", "tile reference"],
            has_intermediate_output=True,
            inputs=[
                io.ClipVision.Input("encoder", tooltip="From Load Image Encoder: the one of the adapter's training."),
                io.Image.Input("image", tooltip="One picture of any proportions, or a batch of them."),
                io.Int.Input(
                    "rows", default=0, min=0, max=MAX_TILES,
                    tooltip="Tiles from top to bottom, 1 to 16. 0 (default): as many as squares need; with no columns "
                    "either, one row or column of squares, or 2 x 2 where the picture is nearly square.",
                ),
                io.Int.Input(
                    "columns", default=0, min=0, max=MAX_TILES,
                    tooltip="Tiles from left to right, 1 to 16. 0 (default): as many as squares need.",
                ),
                io.Float.Input(
                    "overlap", default=0.25, min=0.0, max=0.5, step=0.05,
                    tooltip="How much of a tile the next one sees, too, at least: 0 (neutral) is nothing, 0.5 half.",
                ),
                io.Float.Input(
                    "mix", default=0.5, min=0.0, max=1.0, step=0.05,
                    tooltip="For 'image prompt': how much the tiles count beside the whole picture. 0 (neutral) is the "
                    "whole picture alone, as Encode Image Prompt, 1 the tiles alone.",
                ),
                io.Boolean.Input(
                    "soft", default=True,
                    tooltip="Masks that run into each other where tiles overlap. Off: they meet in an edge.",
                ),
                *ENCODE_INPUTS,
                *VIEW_INPUTS,
            ],
            outputs=[
                PromptType.Output(
                    display_name="image prompt", tooltip="The whole picture and its merged tiles, as one picture."
                ),
                PromptType.Output(display_name="tiles", tooltip="One picture for each tile, row by row."),
                io.Mask.Output(display_name="masks", tooltip="The place of each tile; in sum 1 everywhere."),
                io.Image.Output(display_name="seen", tooltip="Exactly what the encoder sees of each tile."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, encoder: Any, image: Tensor, rows: int, columns: int, overlap: float, mix: float, soft: bool, crop: str,
        sharpening: float = 0.0, size: int = 0,
    ) -> io.NodeOutput:  # fmt: skip
        whole = encode(encoder, image, crop, sharpening=sharpening, size=size)
        cut = tiling(image.shape[1], image.shape[2], rows, columns, overlap)
        tiles = ImagePrompt(whole.encoder, tile_views(image, cut, whole.encoder.image_size, sharpening))
        merged = TiledPrompt(whole, tiles, (len(cut.tops), len(cut.lefts)), mix)
        return io.NodeOutput(merged, tiles, masks_of(image, cut, soft), tiles.pixels, ui=shown(tiles.pixels))
