"""The base that is a diffusers UNet with cross-attention: SD1.5, SD2, SDXL and what is trained from them.

Conditioning: "states" [B, T, D] of the text for the cross-attention; for SDXL also "pooled" [B, P] of its second text
encoder and "time_ids" [B, 6], the sizes of picture, crop and target.

Shapes: B batch, C latent channels, h and w latent height and width, T text tokens, D their width, P pooled width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ..data.geometry import Geometry
from .device import moved
from .files import BaseFiles, build_vae, read_unet_config, text_encoder_of
from .parts import Parts
from .processor import AdapterOutput, AttentionNorms, Kind, Mailbox, install
from .sites import Sites, sites_of

COMPILED = ("BasicTransformerBlock", "ResnetBlock2D")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


class UNetBase:
    """`FrozenBase` by a UNet. dtype: of the parts; results are fp32.

    Raises ValueError when a part is missing or of the wrong kind.
    """

    def __init__(self, files: BaseFiles, parts: Parts, dtype: torch.dtype = torch.float32) -> None:
        self.files, self.parts, self.dtype = files, parts, dtype
        self.device = parts.device
        self._mailbox = Mailbox()

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.parts.get("unet", lambda: self.files.load_unet(self.dtype).to(memory_format=self.memory_format))

    @property
    def memory_format(self) -> torch.memory_format:
        # cuDNN's half-precision convolutions want channels last, and would turn each picture around and back
        is_half_cuda = self.device.type == "cuda" and self.dtype != torch.float32
        return torch.channels_last if is_half_cuda else torch.contiguous_format

    @property
    def vae(self) -> Any:
        return self.parts.get("vae", lambda: self.files.load_vae(self.latent_dtype))

    @property
    def latent_dtype(self) -> torch.dtype:
        # SDXL's own autoencoder overflows in half precision and says so
        return torch.float32 if self.files.vae_config.get("force_upcast", False) else self.dtype

    @property
    def text_encoders(self) -> Any:
        """One text encoder, or SDXL's two."""
        return self.parts.get("text_encoders", lambda: nn.ModuleList(self.files.load_text_encoders(self.dtype)))

    @cached_property
    def tokenizers(self) -> list[Any]:
        return self.files.load_tokenizers()

    @cached_property
    def sites(self) -> Sites:
        return sites_of(self.unet)

    @property
    def latent_scale(self) -> tuple[float, float]:
        config = self.files.vae_config
        return float(config.get("scaling_factor") or 1.0), float(config.get("shift_factor") or 0.0)

    def scheduler_config(self) -> dict[str, Any]:
        return self.files.scheduler_config()

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        config = self.files.vae_config
        levels = config.get("block_out_channels") or config["encoder_block_out_channels"]
        side = resolution // 2 ** (len(levels) - 1)  # each level but the last halves it
        return int(self.files.unet_config.get("in_channels", 4)), side, side

    @torch.no_grad()
    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """Autoencoders without a distribution (Tiny, DC) give a deviation of zero."""
        encoded = self.vae.encode(pixels.to(self.device, self.vae.dtype))
        if hasattr(encoded, "latent_dist"):
            mean, std = encoded.latent_dist.mean, encoded.latent_dist.std
        else:
            mean = encoded.latents if hasattr(encoded, "latents") else encoded.latent
            std = torch.zeros_like(mean)
        return torch.stack([mean, std], dim=1).float()

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        factor, shift = self.latent_scale
        pixels: Tensor = self.vae.decode((latents / factor + shift).to(self.vae.dtype)).sample.float()
        return pixels

    @torch.no_grad()
    def encode_texts(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """SD's last hidden states, or SDXL's two penultimate ones joined, and a pooled one."""
        is_pair = len(self.text_encoders) == 2
        states, out = [], {}
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
            tokens = tokenizer(
                list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            output = encoder(moved(tokens.input_ids, self.device), output_hidden_states=is_pair)
            states.append(output.hidden_states[-2] if is_pair else output.last_hidden_state)
            if is_pair and hasattr(output, "text_embeds"):
                out["pooled"] = output.text_embeds.float()
        return {"states": torch.cat(states, dim=-1).float(), **out}

    def conditioning(self, texts: dict[str, Tensor], geometries: Sequence[Geometry]) -> dict[str, Tensor]:
        out = {name: moved(value, self.device) for name, value in texts.items()}
        if self.files.unet_config.get("addition_embed_type") == "text_time":
            sizes = [(*one.original, *one.corner, *one.target) for one in geometries]
            out["time_ids"] = moved(torch.tensor(sizes).float(), self.device)
        return out

    def install(self, attention: Kind, has_lora: bool, checkpoints_gradients: bool = False) -> None:
        self._mailbox = install(self.unet, attention, has_lora)
        if checkpoints_gradients:
            self.unet.enable_gradient_checkpointing()
            self.unet.train()  # diffusers checkpoints in training mode only; the UNet has no dropout in effect

    def compile(self, backend: str = "inductor") -> None:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)  # blocks share their code
        for module in self.unet.modules():
            if type(module).__name__ in COMPILED:
                module.compile(dynamic=False, backend=backend)

    def denoise(self, noisy: Tensor, time: Tensor, conditioning: dict[str, Tensor], images: AdapterOutput) -> Tensor:
        self._mailbox.put(images)
        added = None
        if "time_ids" in conditioning:
            added = {"text_embeds": conditioning["pooled"].to(self.dtype), "time_ids": conditioning["time_ids"]}
        states = conditioning["states"].to(self.dtype)
        noisy = noisy.to(self.dtype, memory_format=self.memory_format)
        prediction: Tensor = self.unet(noisy, time, states, added_cond_kwargs=added).sample
        return prediction

    def count_attention(self, norms: AttentionNorms | None) -> None:
        self._mailbox.norms = norms

    def forget(self) -> None:
        self._mailbox.clear()


def build_parts(layout: Path) -> dict[str, list[Any]]:
    """The parts that a diffusers folder's JSON files describe, without weights: on the meta device, to count them."""
    unet = UNet2DConditionModel.from_config(read_unet_config(layout))
    texts = [text_encoder_of(layout / name) for name in TEXT_ENCODERS if (layout / name).is_dir()]
    return {"UNet": [unet], "autoencoder": [build_vae(layout / "vae")], "text encoders": texts}
