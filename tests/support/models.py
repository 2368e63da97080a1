"""Models of real shape with seeded random weights, the same weights in ComfyUI's model code and in diffusers'."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor

from tests.support import host
from tools.unets import UNETS

core = host.part("ipadapter_core")

import comfy.clip_vision  # noqa: E402  (ComfyUI is on the path only after the pack is loaded)
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel  # noqa: E402, F401
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.patcher_extension  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.utils  # noqa: E402
from diffusers import UNet2DConditionModel  # noqa: E402

CONTEXT = {base: config["context_dim"] for base, config in UNETS.items()}
POOLED = {"SDXL": 1280, "Kolors": 4096}  # width of the pooled text


@functools.cache
def diffusers_unet(base: str = "SD15", channels: int = 320, seed: int = 0) -> UNet2DConditionModel:
    """diffusers' UNet of a base with its levels scaled to `channels`, seeded random weights, fp32."""
    torch.manual_seed(seed)
    if base == "SD2":
        unet = UNet2DConditionModel(
            block_out_channels=tuple(channels * m for m in (1, 2, 4, 4)),
            attention_head_dim=tuple(channels * m // 64 for m in (1, 2, 4, 4)),
            cross_attention_dim=1024,
            use_linear_projection=True,
        )
    elif base == "SD15":
        unet = UNet2DConditionModel(
            block_out_channels=tuple(channels * m for m in (1, 2, 4, 4)), cross_attention_dim=768, attention_head_dim=8
        )
    else:
        unet = UNet2DConditionModel(
            block_out_channels=tuple(channels * m for m in (1, 2, 4)),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=tuple(channels * m // 64 for m in (1, 2, 4)),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=UNETS[base]["adm_in_channels"],
        )
    return unet.eval().requires_grad_(False)


@functools.cache
def comfy_model(base: str = "SD15", channels: int = 320, seed: int = 0) -> comfy.model_patcher.ModelPatcher:
    """ComfyUI's MODEL that shares the tensors of `diffusers_unet`."""
    config = copy.deepcopy(UNETS[base]) | {"model_channels": channels}
    supported = {"SD15": "SD15", "SD2": "SD20", "SDXL": "SDXL", "Kolors": "SDXL"}
    model_config = getattr(comfy.supported_models, supported[base])(config)
    model_config.unet_config = config
    model = model_config.get_model({}, device="meta")
    ours = diffusers_unet(base, channels, seed).state_dict()
    names = comfy.utils.unet_to_diffusers(config)
    weights = {names[key]: value for key, value in ours.items()}
    model.diffusion_model.load_state_dict(weights, strict=True, assign=True)
    if base == "Kolors":
        model.diffusion_model.encoder_hid_proj = kolors_text_projection()
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


@functools.cache
def kolors_text_projection() -> torch.nn.Module:
    """Kolors' projection of its text, 4096 to 2048, as its packs keep it on the UNet."""
    torch.manual_seed(11)
    return torch.nn.Linear(4096, 2048).requires_grad_(False)


def adapter_weights(family: str, model: Any, seed: int = 1, num_tokens: int | None = None) -> dict[str, Tensor]:
    """Seeded random weights of an adapter for `model` in the published layout: base (ViT-H pooled) or plus (ViT-H)."""
    _, table = host.part("nodes.hosts").host_of(model)
    unet = model.model.diffusion_model
    to_k = {layer.index: unet.get_submodule(layer.comfyui).to_k for layer in table}
    context = to_k[1].in_features
    if family == "base":
        shape = core.LinearProjection()
        spec = core.AdapterSpec("base", "pooled", 1024, context, num_tokens or 4, tuple(sorted(to_k)), shape)
    else:
        width = 768 if context == 768 else 1280
        shape = core.ResamplerProjection(width=width, depth=4, num_heads=width // 64, ff_width=4 * width)
        spec = core.AdapterSpec("plus", "penultimate", 1280, context, num_tokens or 16, tuple(sorted(to_k)), shape)
    torch.manual_seed(seed)
    adapter = core.IPAdapter(spec, {index: module.out_features for index, module in to_k.items()})
    for value in adapter.ip_adapter.parameters():
        torch.nn.init.normal_(value, std=2 * context**-0.5)  # strong enough to be seen in the prediction
    return adapter.requires_grad_(False).state_dict()


def loaded_adapter(weights: dict[str, Tensor], name: str = "adapter.safetensors", variant: str = "auto") -> Any:
    """The nodes' adapter from weights, through the same code as a file's."""
    return host.part("nodes.models").adapter_of(name, core.WeightsFile(weights), variant)


class Features:
    """An image prompt with given features in place of an encoder's, for tests that are not about encoders."""

    def __init__(
        self, pooled: Tensor, penultimate: Tensor, uncond_penultimate: Tensor | None = None, raw: Tensor | None = None
    ) -> None:
        self.cond = {"pooled": pooled, "penultimate": penultimate}
        self.uncond = {"pooled": torch.zeros_like(pooled[:1]), "penultimate": uncond_penultimate}
        self.raw = raw

    @staticmethod
    def random(pictures: int = 1, seed: int = 2, tokens: int = 257, pooled: int = 1024, hidden: int = 1280) -> Features:
        """Seeded features of ViT-H's widths, or others, and identities of ArcFace's usual length."""
        generator = torch.Generator().manual_seed(seed)
        shapes = ((pictures, pooled), (pictures, tokens, hidden), (1, tokens, hidden), (pictures, 512))
        return Features(*(torch.randn(shape, generator=generator) for shape in shapes))

    def features(self, feature: str, crop: Any = None) -> Tensor:
        return self.cond[feature]

    def zero_states(self) -> Tensor:
        return self.uncond["penultimate"]

    def unconditional(self, feature: str) -> Tensor:
        """What an oracle is given for "no picture"."""
        return self.uncond[feature]

    def identities(self) -> Tensor | None:
        return self.raw


def apply(
    model: Any,
    weights: dict[str, Tensor] | Any,
    prompt: Any,
    weight: float = 1.0,
    *,
    influence: Any = None,
    **inputs: Any,
) -> Any:
    """Apply IP-Adapter as the node does with these inputs, or with an influence that no form can give yet.

    weights: of an adapter, or one that is loaded.
    """
    adapter = loaded_adapter(weights) if isinstance(weights, dict) else weights
    given = host.part("nodes.forms.controls").controls(weight=weight, **inputs)
    if influence is not None:
        given["influence"] = influence
    return host.part("nodes.apply").apply_adapter(model, adapter, prompt, **given)


def text(seed: int, context: int = 768, tokens: int = 77, pooled: int | None = None, **values: Any) -> list[Any]:
    """A CONDITIONING of random text states; seed 0 is the empty text's stand-in, zeros."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(1, tokens, context, generator=generator) * (seed != 0)
    extra = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    return [[states, extra | values]]


def sample(model: Any, positive: Any, negative: Any, cfg: float = 7.5, steps: int = 3, size: tuple[int, int] = (16, 16),
           sampler: str = "euler", scheduler: str = "normal", seed: int = 3, batch: int = 1) -> Tensor:  # fmt: skip
    """A run of ComfyUI's sampler on an empty latent of `size` latent pixels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 4, *size, generator=generator)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, scheduler, positive, negative, torch.zeros_like(noise), seed=seed,
            disable_pbar=True,
        )  # fmt: skip


class Calls:
    """Records what the UNet was called with and gave, one entry for each forward pass."""

    def __init__(self, model: Any) -> None:
        self.entries: list[dict[str, Any]] = []
        self.unet = model.model.diffusion_model

    def __enter__(self) -> list[dict[str, Any]]:
        def record(_: Any, args: Any, kwargs: Any, output: Tensor) -> None:
            options = kwargs["transformer_options"]
            self.entries.append(
                {"x": args[0], "t": args[1], "context": kwargs["context"], "y": kwargs.get("y"), "output": output,
                 "roles": options["cond_or_uncond"], "options": options, "control": kwargs.get("control")}
            )  # fmt: skip

        self.handle = self.unet.register_forward_hook(record, with_kwargs=True)
        return self.entries

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()


def transformer() -> Any:
    """A FLUX model of one thin block of each kind."""
    config = {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 16, "context_in_dim": 32,
        "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1,
        "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": False,
        "txt_ids_dims": [], "dtype": torch.float32,
    }  # fmt: skip
    flux = comfy.supported_models.FluxSchnell(config)
    flux.unet_config = config
    built = flux.get_model({}, device="cpu")
    for value in built.diffusion_model.parameters():
        torch.nn.init.normal_(value, std=0.05)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(built, load_device=device, offload_device=torch.device("cpu"))
