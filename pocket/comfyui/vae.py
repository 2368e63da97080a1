"""Pocket's autoencoder as VAE. ComfyUI has diffusers' AutoencoderDC in its own words, key for key."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from comfy.ldm.ace.vae.autoencoder_dc import AutoencoderDC
from comfy.taesd.taesd import TAESD

from ..places import Places
from .files import read

# What diffusers' config.json says and ComfyUI's class has fixed.
FIXED = {"encoder_out_shortcut": True, "decoder_in_shortcut": True, "decoder_conv_act_fn": "relu"}


class PocketVAE(comfy.sd.VAE):
    """ComfyUI's VAE around a given autoencoder, in fp32."""

    def __init__(self, autoencoder: AutoencoderDC) -> None:
        # ComfyUI chooses a VAE's class by the weights' keys, and knows no file of this one: it sets itself up for
        # TAESD, which has the same pixels, channels and scale, and then gets the true autoencoder.
        super().__init__(sd=TAESD(latent_channels=4).state_dict(), dtype=torch.float32)
        self.first_stage_model = autoencoder.eval().requires_grad_(False)
        comfy.model_management.archive_model_dtypes(self.first_stage_model)
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model,
            load_device=self.device,
            offload_device=comfy.model_management.vae_offload_device(),
        )
        self.size = None
        self.model_size()


def load_vae(places: Places) -> PocketVAE:
    """Raises ValueError when the weights are not there."""
    described, weights = read(places.base / "vae")
    described = {key: value for key, value in described.items() if not key.startswith("_")}
    for key, value in FIXED.items():
        found = described.pop(key, value)
        assert found == value, f"{key} is {found}, ComfyUI's autoencoder knows only {value}"
    autoencoder = AutoencoderDC(**described)
    autoencoder.load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
    return PocketVAE(autoencoder)
