"""One step at the full size of SD1.5 against an independent computation: the PyPI package's attention processor and
projection in diffusers' UNet, with the loss written out. Random weights, 256 px, batch 2, fixed noise, timesteps
and drops.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from ipadapter_core import Given
from trainer.base.encoder import encoder_facts
from trainer.base.files import BaseFiles, layout_folder, read_unet_config
from trainer.base.parts import Parts
from trainer.base.unet import UNetBase
from trainer.settings.config import Config, ModelConfig
from trainer.settings.load import load_config
from trainer.step.adapter import new_adapter
from trainer.step.inputs import Inputs
from trainer.step.objective import build_objective
from trainer.step.step import losses
from trainer.step.transport import TrainedAdapter

# the package imports a name that diffusers has moved
diffusers.pipelines.controlnet.MultiControlNetModel = diffusers.MultiControlNetModel
from ip_adapter.attention_processor import AttnProcessor2_0, IPAttnProcessor2_0  # noqa: E402
from ip_adapter.ip_adapter import ImageProjModel  # noqa: E402
from ip_adapter.resampler import Resampler  # noqa: E402

LAYOUT = layout_folder("sd15")
SIDE = 256 // 8
TOLERANCE = 1e-5
TIME = torch.tensor([37, 811])


def random_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config(read_unet_config(LAYOUT))


def inputs(config: Config) -> Inputs:
    """Two samples: the first with its picture, the second with text and picture dropped."""
    generator = torch.Generator().manual_seed(1)
    shape = encoder_facts(config.model.encoder)
    is_plus = config.adapter.family == "plus"
    features = (
        torch.randn(2, 257, shape.width, generator=generator)
        if is_plus
        else torch.randn(2, shape.embed_dim, generator=generator)
    )
    if not is_plus:
        features[1] = 0.0
    return Inputs(
        names=["with picture", "dropped"],
        x0=torch.randn(2, 4, SIDE, SIDE, generator=generator),
        noise=torch.randn(2, 4, SIDE, SIDE, generator=generator),
        time=TIME,
        conditioning={"states": torch.randn(2, 77, 768, generator=generator)},
        given=Given(features),
    )


def ours(config: Config, batch: Inputs) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and weights of our step."""
    parts = Parts(torch.device("cpu"))
    parts.get("unet", random_unet)
    base = UNetBase(BaseFiles(ModelConfig(base=str(LAYOUT))), parts)
    base.install(config.adapter.attention, has_lora=False)
    trained = TrainedAdapter(new_adapter(config, base.sites, encoder_facts(config.model.encoder)))
    objective = build_objective(base.scheduler_config(), config.optimiser)
    loss = losses(base, objective, batch, trained.by_layer(trained(*batch.given))).mean()
    loss.backward()
    named = dict(trained.adapter.named_parameters())
    gradients = {name: parameter.grad for name, parameter in named.items() if parameter.grad is not None}
    assert gradients.keys() == named.keys()
    return float(loss.detach()), gradients, {name: parameter.detach() for name, parameter in named.items()}


def theirs(config: Config, batch: Inputs, weights: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """The same step by the package's parts in diffusers' UNet: image tokens behind the text's, loss written out."""
    unet = random_unet().eval().requires_grad_(False)
    projection: Any
    if config.adapter.family == "plus":
        projection = Resampler(
            dim=768, depth=4, dim_head=64, heads=12, num_queries=16, embedding_dim=1280, output_dim=768, ff_mult=4
        )
        num_tokens = 16
    else:
        projection, num_tokens = (
            ImageProjModel(cross_attention_dim=768, clip_embeddings_dim=1024, clip_extra_context_tokens=4),
            4,
        )
    processors: dict[str, nn.Module] = {}
    for name in unet.attn_processors:
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.in_features
        is_cross = ".attn2." in name
        processors[name] = IPAttnProcessor2_0(width, 768, num_tokens=num_tokens) if is_cross else AttnProcessor2_0()
    unet.set_attn_processor(dict(processors))
    layers = nn.ModuleList(unet.attn_processors.values())
    projection.load_state_dict(
        {key.removeprefix("image_proj."): value for key, value in weights.items() if key.startswith("image_proj.")}
    )
    layers.load_state_dict(
        {key.removeprefix("ip_adapter."): value for key, value in weights.items() if key.startswith("ip_adapter.")}
    )

    kept = DDPMScheduler.from_pretrained(LAYOUT, subfolder="scheduler").alphas_cumprod[TIME].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * batch.x0 + (1 - kept).sqrt() * batch.noise
    states = torch.cat([batch.conditioning["states"], projection(batch.given.features)], dim=1)
    loss = F.mse_loss(unet(noisy, TIME, states).sample, batch.noise)
    loss.backward()
    gradients = {f"image_proj.{name}": parameter.grad for name, parameter in projection.named_parameters()}
    gradients |= {f"ip_adapter.{name}": parameter.grad for name, parameter in layers.named_parameters()}
    return float(loss), gradients


@pytest.mark.slow
@pytest.mark.all_threads
@pytest.mark.parametrize("preset", ["sd15", "sd15_plus"])
def test_loss_and_every_gradient_equal_the_packages(preset: str, tmp_path: Path) -> None:
    config = load_config(preset)
    batch = inputs(config)
    loss, gradients, weights = ours(config, batch)
    gc.collect()
    reference_loss, reference = theirs(config, batch, weights)
    assert gradients.keys() == reference.keys()
    worst = {
        name: float((gradients[name] - found).abs().max() / found.abs().max()) for name, found in reference.items()
    }
    name = max(worst, key=worst.__getitem__)
    count = sum(value.numel() for value in weights.values())
    print(
        f"\n{preset}: {count:,} weights in {len(worst)} tensors; loss {loss:.8f}, the package's {reference_loss:.8f}; "
        f"worst gradient {name} {worst[name]:.2e}"
    )
    assert abs(loss - reference_loss) <= TOLERANCE * abs(reference_loss)
    assert worst[name] <= TOLERANCE
