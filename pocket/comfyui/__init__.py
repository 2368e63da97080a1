"""Pocket in ComfyUI: each part as ComfyUI's own kind of object. No diffusers and no transformers models in here."""

from .controlnet import load_controlnet
from .model import load_model
from .text import load_clip
from .vae import load_vae

__all__ = ["load_clip", "load_controlnet", "load_model", "load_vae"]
