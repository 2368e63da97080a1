"""Pocket: a small diffusion model that this pack brings along, and pictures of its world to prompt it with."""

from __future__ import annotations

import comfy.sd
import torch
from comfy_api.latest import io, ui

from ...ipadapter_core import read_weights
from ...pocket.comfyui import load_clip, load_controlnet, load_model, load_vae
from ...pocket.places import Places
from ...pocket.world import drawing, scenes
from .. import folders
from ..sockets import POCKET, Form

PLACES = Places()
LOOKS = ("plain", "sticker")
SHOWN = 3  # times as large as it is, on the node itself: the page shows small pictures as small as they are
PARTS = [*(PLACES.base / part for part in ("unet", "text_encoder", "tokenizer", "vae")), PLACES.controlnet, PLACES.look]


def register() -> None:
    """Offer pocket's image encoder and adapters in this pack's own lists: no other node can use them."""
    folders.bundle(folders.ENCODERS, PLACES.encoder.parent)
    folders.bundle(folders.ADAPTERS, PLACES.adapters)


class LoadPocket(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptLoadPocket",
            display_name="Load Pocket Model",
            category=POCKET,
            description="A small diffusion model that comes with this pack, to try image prompts with nothing to "
            "download: pictures of 64 pixels, of one shape on a background.",
            search_aliases=["pocket", "demo", "example", "tiny", "checkpoint"],
            inputs=[
                io.Combo.Input(
                    "look", options=list(LOOKS), default=LOOKS[0], optional=True,
                    tooltip="What it was trained on: 'plain' (neutral), or 'sticker', a fine-tune by a LoRA on shapes "
                    "with a white rim and a dark line.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="Of SD1.5's kind. Its adapters are pocket and pocket_plus, its image encoder "
                                "pocket/."),
                io.Clip.Output(tooltip='Knows few words: "a red star on pink".'),
                io.Vae.Output(),
                io.ControlNet.Output(tooltip="For silhouettes, white on black."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, look: str = LOOKS[0]) -> str:
        return " ".join(folders.fingerprint(part) for part in PARTS if part.exists())

    @classmethod
    def execute(cls, look: str = LOOKS[0]) -> io.NodeOutput:
        model = load_model(PLACES)
        if look != LOOKS[0]:
            model, _ = comfy.sd.load_lora_for_models(model, None, read_weights(PLACES.look).tensors, 1.0, 0.0)
        return io.NodeOutput(model, load_clip(PLACES), load_vae(PLACES), load_controlnet(PLACES))


class DrawPocketPicture(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        combos = [
            io.Combo.Input(name, options=list(values), tooltip=f"The {name} in the picture.")
            for name, values in scenes.ATTRIBUTES.items()
        ]
        return io.Schema(
            node_id="ImagePromptPocketPicture",
            display_name="Draw Pocket Picture",
            category=POCKET,
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
