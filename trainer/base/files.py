"""The frozen base model: a diffusers folder, or a single checkpoint file as ComfyUI uses it. Nothing is downloaded.

Parts are loaded one by one, so that a training with caches never holds the autoencoder or the text encoders.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ipadapter_core import read_weights

from ..settings.config import ModelConfig
from ..settings.read import read_object
from .tokenizer import clip_tokenizer

LAYOUTS = Path(__file__).parents[1] / "bases"  # the JSON files of published bases: sd15, sd2, sdxl
AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny, "AutoencoderDC": AutoencoderDC}
FLOW = "FlowMatchEulerDiscreteScheduler"  # the class of a flow base's scheduler
TEXT_ENCODERS = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}


class BaseFiles:
    """Where a base's parts come from; each `load_*` reads one part in fp32 or the dtype asked for, on the CPU.

    Raises ValueError when the base is missing, of a kind that has no cross-attention, or lacks a part.
    """

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self.path = Path(model.base)
        if not model.base:
            raise ValueError("model.base is not set: give a diffusers folder or a checkpoint file")
        if not self.path.exists():
            raise ValueError(
                f"there is no base {model.base}: give a diffusers folder or a checkpoint file in model.base"
            )
        if self.path.is_dir() and not (self.path / "unet" / "config.json").exists():
            raise ValueError(
                f"{self.path} is no diffusers folder of a UNet model (it has no unet/config.json): check model.base"
            )

    @cached_property
    def layout(self) -> Path:
        """The folder with the JSON files: the base's own, model.base_config, or a shipped one by the file's keys."""
        if self.path.is_dir():
            return self.path
        if self.model.base_config:
            return layout_folder(self.model.base_config)
        keys = self._tensors.keys()
        for prefix, name in (
            ("conditioner.embedders.1.model.", "sdxl"),
            ("cond_stage_model.model.", "sd2"),
            ("cond_stage_model.transformer.", "sd15"),
        ):
            if any(key.startswith(prefix) for key in keys):
                return LAYOUTS / name
        raise ValueError(
            f"{self.path.name} is no full checkpoint of SD1.5, SD2 or SDXL (no text encoder was found in it): "
            "give one with UNet, autoencoder and text encoder, or a diffusers folder"
        )

    @cached_property
    def unet_config(self) -> dict[str, Any]:
        """The UNet's config. Raises ValueError for a base without cross-attention."""
        return read_unet_config(self.layout)

    def load_unet(self, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
        assert self.unet_config
        if self.path.is_dir():
            return _whole(UNet2DConditionModel, self.path / "unet", **self._options(dtype))
        return self._from_file(UNet2DConditionModel, "unet", dtype)

    def load_vae(self, dtype: torch.dtype = torch.float32) -> Any:
        """The autoencoder: KL, Tiny or DC by its config."""
        if self.model.vae:
            return load_vae(Path(self.model.vae), self.layout, dtype)
        if self.path.is_dir():
            return _whole(_autoencoder(self.path / "vae"), self.path / "vae", **self._options(dtype))
        return self._from_file(AutoencoderKL, "vae", dtype)

    @cached_property
    def vae_config(self) -> dict[str, Any]:
        """The autoencoder's config, without its weights."""
        own = Path(self.model.vae) if self.model.vae else None
        folder = own if own and own.is_dir() else self.layout / "vae"
        kind = _autoencoder(folder)
        signature = inspect.signature(kind.__init__).parameters
        defaults = {
            name: value.default for name, value in signature.items() if name in ("scaling_factor", "shift_factor")
        }
        return defaults | read_object(folder / "config.json")

    def load_text_encoders(self, dtype: torch.dtype = torch.float32) -> list[Any]:
        """One text encoder, or SDXL's two."""
        return [self._load_text_encoder(name, dtype) for name in ("text_encoder", "text_encoder_2") if self._has(name)]

    def load_tokenizers(self) -> list[CLIPTokenizer]:
        if self.path.is_dir():
            names = [name for name in ("tokenizer", "tokenizer_2") if (self.path / name).is_dir()]
            return [CLIPTokenizer.from_pretrained(self.path / name) for name in names]
        # a second text encoder pads with token 0, the first with the end of the text; so does SD2's
        pads = {"sd2": ["!"], "sdxl": ["<|endoftext|>", "!"]}.get(self.layout.name, ["<|endoftext|>"])
        return [clip_tokenizer(pad) for pad in pads]

    def scheduler_config(self) -> dict[str, Any]:
        """The noise schedule as diffusers writes it, with the prediction that the config names or the base's own.

        Raises ValueError when there is none, or the config names another prediction than a flow for a flow.
        """
        path, wanted = self.layout / "scheduler" / "scheduler_config.json", self.model.prediction
        if not path.exists():
            raise ValueError(f"{self.layout} has no scheduler/scheduler_config.json: add the base's own")
        config = read_object(path)
        is_flow = config.get("_class_name") == FLOW
        if wanted == "flow":
            return config if is_flow else {"_class_name": FLOW}
        if wanted != "auto":
            if is_flow:
                raise ValueError(f'the base is a flow, and model.prediction is "{wanted}": set it to "auto"')
            return config | {"prediction_type": wanted}
        if not self.path.is_dir() and "v_pred" in self._tensors:
            config |= {"prediction_type": "v_prediction"}
            config |= {"rescale_betas_zero_snr": True} if "ztsnr" in self._tensors else {}
        return config

    def _options(self, dtype: torch.dtype) -> dict[str, Any]:
        return {"torch_dtype": dtype, "variant": self.model.variant or None, "local_files_only": True}

    def _has(self, name: str) -> bool:
        return (self.layout / name / "config.json").exists()

    def _load_text_encoder(self, name: str, dtype: torch.dtype) -> Any:
        kind = _text_encoder(self.layout / name)
        if self.path.is_dir():
            return _whole(kind, self.path / name, dtype=dtype, variant=self.model.variant or None)
        return create_diffusers_clip_model_from_ldm(
            kind, dict(self._tensors), subfolder=name, config=str(self.layout), torch_dtype=dtype, local_files_only=True
        )

    def check_tensors(self) -> None:
        """Raises ValueError when a single file's UNet takes more than noisy latents; its layout does not tell."""
        first = self._tensors.get("model.diffusion_model.input_blocks.0.0.weight")
        if first is not None:
            check_channels(first.shape[1], self.unet_config.get("out_channels", 4))

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return {key.removeprefix("state_dict."): value for key, value in read_weights(self.path).tensors.items()}

    def _from_file(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        return kind.from_single_file(
            dict(self._tensors), config=str(self.layout), subfolder=part, torch_dtype=dtype, local_files_only=True
        )


def _whole(kind: Any, folder: Path, **options: Any) -> Any:
    """A part with all of its weights: the libraries fill in random ones for those that a file lacks, with a warning."""
    try:
        found, info = kind.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{folder} cannot be loaded ({reason}): download it again") from error
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise ValueError(
            f"the weights in {folder} lack {len(lacking)} that its config.json asks for, {lacking[0]} first: "
            "download it again"
        )
    return found


def layout_folder(name: str) -> Path:
    """A shipped layout by its name, or a diffusers folder. Raises ValueError when it is neither."""
    folder = LAYOUTS / name if (LAYOUTS / name / "unet").is_dir() else Path(name)
    if not (folder / "unet" / "config.json").exists():
        shipped = ", ".join(sorted(path.name for path in LAYOUTS.iterdir() if path.is_dir()))
        raise ValueError(
            f"model.base_config = {name!r} has no unet/config.json: give a diffusers folder or one of {shipped}"
        )
    return folder


def read_unet_config(layout: Path) -> dict[str, Any]:
    """The UNet's config of a diffusers folder. Raises ValueError for a base without cross-attention."""
    config = read_object(layout / "unet" / "config.json")
    kind = config.get("_class_name", "UNet2DConditionModel")
    if kind != "UNet2DConditionModel":
        raise ValueError(
            f"the base's UNet is a {kind}, which has no cross-attention for image prompts: "
            "use a UNet2DConditionModel (SD1.5, SD2, SDXL)"
        )
    check_channels(config.get("in_channels", 4), config.get("out_channels", 4))
    return config


def check_channels(taken: int, given: int) -> None:
    """Raises ValueError for a UNet that takes more than the noisy latents: of inpainting, edits or depth."""
    if taken > given:
        kind = {2 * given + 1: "for inpainting", 2 * given: "for edits by instructions"}.get(taken, "of another kind")
        raise ValueError(
            f"the base is {kind}: its UNet takes {taken} channels, {given} of them the noisy latents; train on the "
            "plain base that it was made from, the adapter then fits both"
        )


def load_vae(path: Path, layout: Path, dtype: torch.dtype) -> Any:
    """An autoencoder of its own: a diffusers folder (KL, Tiny, DC) or a KL file in the original layout."""
    if not path.exists():
        raise ValueError(f"there is no autoencoder {path}: give a diffusers folder or a file in model.vae")
    if path.is_dir():
        return _whole(_autoencoder(path), path, torch_dtype=dtype, local_files_only=True)
    return AutoencoderKL.from_single_file(
        dict(read_weights(path).tensors), config=str(layout), subfolder="vae", torch_dtype=dtype, local_files_only=True
    )


def build_vae(folder: Path) -> Any:
    """The autoencoder that a folder's config describes, without its weights: on the meta device it takes no memory."""
    return _autoencoder(folder).from_config(read_object(folder / "config.json"))


def text_encoder_of(folder: Path) -> Any:
    """The text encoder that a folder's config describes, without its weights."""
    kind = _text_encoder(folder)
    return kind(kind.config_class.from_pretrained(folder))


def _text_encoder(folder: Path) -> Any:
    name = (read_object(folder / "config.json").get("architectures") or ["nothing"])[0]
    if name not in TEXT_ENCODERS:
        raise ValueError(f"the text encoder in {folder} is a {name}: expected one of {', '.join(TEXT_ENCODERS)}")
    return TEXT_ENCODERS[name]


def _autoencoder(folder: Path) -> Any:
    if not (folder / "config.json").exists():
        raise ValueError(f"there is no autoencoder in {folder} (no config.json): add it, or name another in model.vae")
    kind = read_object(folder / "config.json").get("_class_name", "AutoencoderKL")
    if kind not in AUTOENCODERS:
        raise ValueError(f"the autoencoder in {folder} is a {kind}: expected one of {', '.join(AUTOENCODERS)}")
    return AUTOENCODERS[kind]
