"""Seeded random models of the published shapes, under the published names, for machines without any pretrained model.

ComfyUI's stock loaders recognise no smaller ones, so the shapes are those of ComfyUI's own classes, and the files have
their true sizes. The values mean nothing: a picture made with them shows that everything runs, not what it can do.

`python -m tools.random_models FOLDER [FILE ...]` writes the files that are missing (all: about 14 GB, a minute or two).
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ipadapter_core import (
    MATRICES,
    AdapterSpec,
    IdentityResamplerProjection,
    IPAdapter,
    LinearProjection,
    ResamplerProjection,
    attention_names,
    unet_sites,
    write_pickle,
)
from ipadapter_core.files.whole import whole
from tools.comfyui import find_or_fetch
from tools.unets import SD15, SDXL

StateDict = dict[str, Tensor]

VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


@functools.cache
def comfy() -> Path:
    """Make ComfyUI's modules importable in this process, without a GPU; returns its folder."""
    folder = find_or_fetch()
    sys.path.insert(0, str(folder))  # before ours, whose nodes/ would hide ComfyUI's nodes.py
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    return folder


def unet(config: dict[str, Any]) -> torch.nn.Module:
    comfy()
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ops import disable_weight_init

    return UNetModel(**config, device="meta", operations=disable_weight_init)


def vae() -> StateDict:
    comfy()
    from comfy.ldm.models.autoencoder import AutoencoderKL

    return AutoencoderKL(ddconfig=VAE, embed_dim=4).state_dict()


def text_encoder(config: str) -> StateDict:
    folder = comfy()
    from comfy.clip_model import CLIPTextModel
    from comfy.ops import disable_weight_init

    described = json.loads((folder / "comfy" / config).read_text())
    return CLIPTextModel(described, None, "meta", disable_weight_init).state_dict()


def image_encoder() -> StateDict:
    folder = comfy()
    from comfy.clip_model import CLIPVisionModelProjection
    from comfy.ops import disable_weight_init

    described = json.loads((folder / "comfy" / "clip_vision_config_h.json").read_text())
    return CLIPVisionModelProjection(described, None, "meta", disable_weight_init).state_dict()


def sd15_checkpoint() -> StateDict:
    text = prefixed("transformer.", text_encoder("sd1_clip_config.json"))
    del text["transformer.text_projection.weight"]
    parts = {"model.diffusion_model.": unet(SD15).state_dict(), "first_stage_model.": vae(), "cond_stage_model.": text}
    return {key: value for prefix, part in parts.items() for key, value in prefixed(prefix, part).items()}


def sdxl_checkpoint() -> StateDict:
    comfy()
    from comfy.supported_models import SDXL as COMFY_SDXL

    text = prefixed("clip_l.transformer.", text_encoder("sd1_clip_config.json"))
    text |= prefixed("clip_g.transformer.", text_encoder("clip_config_bigg.json"))
    text = COMFY_SDXL.process_clip_state_dict_for_saving(None, text)  # the second encoder is in open_clip's layout
    parts = {"model.diffusion_model.": unet(SDXL).state_dict(), "first_stage_model.": vae(), "": text}
    return {key: value for prefix, part in parts.items() for key, value in prefixed(prefix, part).items()}


def controlnet() -> StateDict:
    comfy()
    from comfy.cldm.cldm import ControlNet
    from comfy.ops import disable_weight_init

    config = {key: value for key, value in SD15.items() if key not in ("out_channels", "transformer_depth_output")}
    net = ControlNet(**config, hint_channels=3, device="meta", operations=disable_weight_init)
    return prefixed("control_model.", net.state_dict())


def t2i_adapter() -> StateDict:
    comfy()
    from comfy.t2i_adapter.adapter import Adapter

    return Adapter(cin=64, channels=[320, 640, 1280, 1280], nums_rb=2, ksize=1, sk=True, use_conv=False).state_dict()


def adapter(base: dict[str, Any], is_plus: bool = False) -> StateDict:
    """The published adapters for ViT-H: linear projection (base), or resampler (plus)."""
    model = unet(base)
    sites = unet_sites(name for name, _ in model.named_modules())
    widths = {site.index: model.get_submodule(site.comfyui).to_k.out_features for site in sites}
    context_dim = base["context_dim"]
    spec = AdapterSpec(
        family="plus" if is_plus else "base",
        feature="penultimate" if is_plus else "pooled",
        feature_dim=1280 if is_plus else 1024,
        context_dim=context_dim,
        num_tokens=16 if is_plus else 4,
        layers=tuple(widths),
        projection=ResamplerProjection(context_dim, 4, context_dim // 64, 4 * context_dim)
        if is_plus
        else LinearProjection(),
    )
    return IPAdapter(spec, widths).state_dict()


def face_adapter(base: dict[str, Any]) -> StateDict:
    """FaceID plus for ViT-H, with the LoRA of every attention layer of the base."""
    model = unet(base)
    sites = unet_sites(name for name, _ in model.named_modules())
    layers = {index: model.get_submodule(name) for index, name in attention_names(sites).items()}
    context_dim = base["context_dim"]
    resampler = ResamplerProjection(context_dim, 4, context_dim // 64, 4 * context_dim)
    spec = AdapterSpec(
        family="FaceID plus",
        feature="penultimate",
        feature_dim=1280,
        context_dim=context_dim,
        num_tokens=4,
        layers=tuple(site.index for site in sites),
        projection=IdentityResamplerProjection(1024, resampler),
        identity="normed",
    )
    tensors = IPAdapter(spec, {index: layers[index].to_k.out_features for index in spec.layers}).state_dict()
    for index, layer in layers.items():
        for name, path in MATRICES.items():
            linear = layer.get_submodule(path)
            tensors[f"ip_adapter.{index}.{name}_lora.down.weight"] = torch.empty(128, linear.in_features)
            tensors[f"ip_adapter.{index}.{name}_lora.up.weight"] = torch.empty(linear.out_features, 128)
    return tensors


def face_model(path: Path) -> None:
    """One of insightface's, of its true signature: the detector, which finds one face in the middle, or ArcFace."""
    from tools import face_models  # here, because it needs the faces extra, and few need its models

    if path.name.startswith("det"):
        face_models.detector(path, in_the_middle=True)
    else:
        face_models.recogniser(path)


FILES: dict[str, Callable[[], StateDict]] = {
    "checkpoints/v1-5-pruned-emaonly-fp16.safetensors": sd15_checkpoint,
    "checkpoints/sd_xl_base_1.0.safetensors": sdxl_checkpoint,
    "clip_vision/clip_vision_h.safetensors": image_encoder,
    "ipadapter/ip-adapter_sd15.safetensors": lambda: adapter(SD15),
    "ipadapter/ip-adapter-plus_sd15.safetensors": lambda: adapter(SD15, is_plus=True),
    "ipadapter/ip-adapter_sdxl_vit-h.safetensors": lambda: adapter(SDXL),
    "ipadapter/ip-adapter-plus-face_sd15.safetensors": lambda: adapter(SD15, is_plus=True),
    "ipadapter/ip-adapter-faceid-plusv2_sd15.bin": lambda: face_adapter(SD15),
    "controlnet/control_v11p_sd15_canny_fp16.safetensors": controlnet,
    "controlnet/t2iadapter_canny_sd15v2.pth": t2i_adapter,
}
FACE_FILES = ("insightface/models/buffalo_l/det_10g.onnx", "insightface/models/buffalo_l/w600k_r50.onnx")


def prefixed(prefix: str, tensors: StateDict) -> StateDict:
    return {prefix + key: value for key, value in tensors.items()}


@functools.cache
def _normal() -> Tensor:
    # A prime length, so that the rows of a large matrix start at different places of it.
    return torch.randn(4_194_301, generator=torch.Generator().manual_seed(0))


def values(key: str, shape: torch.Size) -> Tensor:
    """fp16 values of a weight: normal with variance 1 / fan-in, so that activations keep their size; norms neutral."""
    if len(shape) < 2:
        is_norm = key.endswith("weight")
        return torch.ones(shape, dtype=torch.float16) if is_norm else torch.zeros(shape, dtype=torch.float16)
    fan_in = shape[-1] if len(shape) == 3 else math.prod(shape[1:])  # the only ones of 3 dimensions are learned queries
    buffer = (_normal() / math.sqrt(fan_in)).half()
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % len(buffer)
    needed = math.prod(shape)
    repeats = -(-(start + needed) // len(buffer))
    return buffer.repeat(repeats)[start : start + needed].reshape(shape)


def write(path: Path, shapes: StateDict) -> None:
    """Write a file of random values, whole or not at all; in torch's pickle where the published file is one."""
    tensors = {key: values(key, value.shape) for key, value in shapes.items() if value.is_floating_point()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        if path.suffix == ".pth":
            torch.save(tensors, part)
        elif path.suffix == ".bin":
            write_pickle(part, tensors)
        else:
            save_file(tensors, part)


def ensure(folder: Path, names: list[str] | None = None) -> None:
    """Write the files of FILES and FACE_FILES (or those named) that are not in `folder` yet, and say which."""
    for name in names or [*FILES, *FACE_FILES]:
        if name in FACE_FILES and not (folder / name).exists():
            face_model(folder / name)
        elif not (folder / name).exists():
            with torch.device("meta"):
                shapes = FILES[name]()
            write(folder / name, shapes)
            size = (folder / name).stat().st_size / 1e9
            print(f"random model of the published shape: {name}, {size:.1f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "files", nargs="*", choices=[*FILES, *FACE_FILES, []], help="files to write; all when none is named"
    )
    arguments = parser.parse_args()
    ensure(arguments.folder, arguments.files)


if __name__ == "__main__":
    main()
