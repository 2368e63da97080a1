"""Reference Noise: a picture of noise, for what an image prompt is not to show."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..prompts.noise import GREY, KINDS, noisy
from ..sockets import CATEGORY, Form


class ReferenceNoise(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptNoise",
            display_name="Reference Noise",
            category=CATEGORY,
            description="Makes a picture of noise, of a reference or of grey. Encoded, it can stand for 'no picture' "
            "as a negative image prompt: what it still shows of the reference is pushed away.",
            search_aliases=["IPAdapter Noise", "negative reference", "noise image"],
            inputs=[
                io.Image.Input(
                    "image", optional=True,
                    tooltip="What the noise is made of, often the reference itself. Not connected: grey, 'size' wide "
                    "and high.",
                ),
                io.Combo.Input(
                    "kind", options=list(KINDS), default=KINDS[0],
                    tooltip="'fade': the picture fades to even noise. 'dissolve': pixels become noise. 'gaussian': "
                    "noise is added. 'shuffle': places are moved about and mirrored; colours stay.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.05,
                    tooltip="How much noise: 0 (neutral) leaves the picture, 1 leaves little or nothing of it.",
                ),
                io.Float.Input(
                    "blur", default=0.0, min=0.0, max=64.0, step=0.5,
                    tooltip="Blurs the result, standard deviation in pixels, so that the encoder sees coarser noise. "
                    "Neutral: 0.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Of the noise: the same seed gives the same picture.",
                ),
                io.Int.Input(
                    "size", default=512, min=16, max=4096, step=8, optional=True, advanced=True,
                    tooltip="Side of the grey picture that is taken when none is connected, in pixels. Default: 512.",
                ),
            ],
            outputs=[io.Image.Output()],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, kind: str, strength: float, blur: float, seed: int, image: Tensor | None = None, size: int = 512
    ) -> io.NodeOutput:
        picture = torch.full((1, size, size, 3), GREY) if image is None else image
        return io.NodeOutput(noisy(picture, kind, strength, seed, blur))
