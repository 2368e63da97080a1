"""Pocket: a small diffusion model that this pack brings along, and pictures of its world to prompt it with."""

from __future__ import annotations

import folder_paths
import torch
from comfy_api.latest import io, ui

from ...pocket.comfyui import load_clip, load_controlnet, load_model, load_vae
from ...pocket.places import Places
from ...pocket.world import drawing, scenes
from .. import folders
from ..sockets import CATEGORY

PLACES = Places()
SHOWN = 3  # times as large as it is, on the node itself: the page shows small pictures as small as they are
PARTS = [*(PLACES.base / part for part in ("unet", "text_encoder", "tokenizer", "vae")), PLACES.controlnet]


def register() -> None:
    """Offer pocket's image encoder, adapters and LoRA wherever ComfyUI lists such files, after the user's own."""
    for kind, folder in (
        (folders.ENCODERS, PLACES.encoder.parent),
        (folders.ADAPTERS, PLACES.adapters),
        ("loras", PLACES.look.parent),
    ):
        folder_paths.add_model_folder_path(kind, str(folder))


class LoadPocket(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptLoadPocket",
            display_name="Load Pocket Model",
            category=CATEGORY,
            description="A small diffusion model that comes with this pack, to try image prompts with nothing to "
            "download: pictures of 64 pixels, of one shape on a background.",
            search_aliases=["pocket", "demo", "example", "tiny", "checkpoint"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="Of SD1.5's kind. Its adapters are pocket and pocket_plus, its LoRA "
                                "pocket_sticker, its image encoder pocket/."),
                io.Clip.Output(tooltip='Knows few words: "a red star on pink".'),
                io.Vae.Output(),
                io.ControlNet.Output(tooltip="For silhouettes, white on black."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls) -> str:
        return " ".join(folders.fingerprint(part) for part in PARTS if part.exists())

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(load_model(PLACES), load_clip(PLACES), load_vae(PLACES), load_controlnet(PLACES))


class DrawPocketPicture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        combos = [
            io.Combo.Input(name, options=list(values), tooltip=f"The {name} in the picture.")
            for name, values in scenes.ATTRIBUTES.items()
        ]
        return io.Schema(
            node_id="ImagePromptPocketPicture",
            display_name="Draw Pocket Picture",
            category=CATEGORY,
            description="Draws a picture of the world that pocket knows, as a reference for it.",
            search_aliases=["pocket", "reference", "example", "shape"],
            inputs=[
                *combos,
                io.Int.Input(
                    "seed", default=0, min=0, max=2**63 - 1, control_after_generate=True,
                    tooltip="Position, rotation and tint, which differ a little from picture to picture.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="picture"),
                io.Image.Output(display_name="silhouette", tooltip="The shape alone, white on black, for ControlNet."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, seed: int, **attributes: str) -> io.NodeOutput:
        numbers = [list(values).index(attributes[name]) for name, values in scenes.ATTRIBUTES.items()]
        scene, given = torch.tensor([numbers]), drawing.chance(1, torch.Generator().manual_seed(seed))
        drawn = (drawing.draw(scene, given), drawing.silhouettes(scene, given))
        # As a file would hold them: in 8 bits.
        picture, silhouette = ((one * 255).round().movedim(1, -1) / 255 for one in drawn)
        shown = picture.repeat_interleave(SHOWN, 1).repeat_interleave(SHOWN, 2)
        return io.NodeOutput(picture, silhouette, ui=ui.PreviewImage(shown, cls=cls))
