"""It learns: a small base trained on 64 real pictures, then adapters on it, with the pictures' features and with noise
for features. The loss is measured at fixed noise that no training sees.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ipadapter_core import Given
from tests.support import runs, tiny_models
from trainer.base.frozen import Frozen
from trainer.base.processor import AdapterOutput, install
from trainer.data.batch import Batch
from trainer.data.loader import open_loader
from trainer.run import folder as run
from trainer.run import loop
from trainer.run.parallel.start import start
from trainer.run.stop import Stop
from trainer.settings.config import Config
from trainer.step.adapter import adapter_output
from trainer.step.inputs import Inputs, draw_latents
from trainer.step.objective import build_objective
from trainer.step.step import Step, losses

NUMBER, SIDE = 64, 64
BASE_STEPS, BASE_BATCH = 200, 32
STEPS, BATCH = 100, 16
SEEDS = (0, 1, 2)
MEASURE = 12345  # the seed of the measure's noise
ROUNDS = 2  # of noise for each picture, in the measure


def write_pictures(folder: Path) -> Path:
    """64 real pictures, the previews of ComfyUI's workflow templates, cut to squares, without captions."""
    spec = importlib.util.find_spec("comfyui_workflow_templates_media_image")
    assert spec is not None and spec.origin is not None
    files = sorted((Path(spec.origin).parent / "templates").glob("*.webp"))
    folder.mkdir(parents=True)
    rows = []
    for place, path in enumerate(files[:: len(files) // NUMBER][:NUMBER]):
        with Image.open(path) as picture:
            side = min(picture.size)
            picture.convert("RGB").crop((0, 0, side, side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(
                folder / f"{place}.png"
            )
        rows.append({"image_file": f"{place}.png", "text": ""})
    assert len(rows) == NUMBER
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def write_autoencoder(folder: Path, data: Path) -> None:
    """A random autoencoder without noise, with latents of mean 0 and variance 1 in each channel on these pictures."""
    vae = tiny_models.tiny_vae("kl")
    channels = vae.config.latent_channels
    with torch.no_grad():
        vae.quant_conv.weight.zero_()
        vae.quant_conv.weight[:channels, :channels, 0, 0] = torch.eye(channels)
        vae.quant_conv.bias[:] = torch.tensor([0.0] * channels + [-30.0] * channels)  # the lowest log-variance there is
        latents = vae.encode(pixels(data)).latent_dist.mean
        mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
        vae.quant_conv.weight[:channels, :channels, 0, 0] = torch.diag(1 / std)
        vae.quant_conv.bias[:channels] = -mean / std
    vae.register_to_config(scaling_factor=1.0)
    vae.save_pretrained(folder)


def pixels(data: Path) -> Tensor:
    rows = json.loads(data.read_text())
    pictures = [Image.open(data.parent / row["image_file"]) for row in rows]
    values = [
        torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3) for picture in pictures
    ]
    return torch.stack(values).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_base(config: Config) -> list[float]:
    """Train the UNet on the pictures without text or image, as every base was; returns the losses."""
    frozen = Frozen(config.model)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, attention_head_dim=4,
        cross_attention_dim=tiny_models.CONTEXT, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    moments = frozen.base.encode_pictures(pixels(Path(config.data.source)))
    empty = frozen.base.encode_texts([""])["states"].expand(BASE_BATCH, -1, -1)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-3)
    objective = build_objective(frozen.base.scheduler_config(), config.optimiser)
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(BASE_STEPS):
        rows = torch.randint(NUMBER, (BASE_BATCH,), generator=generator)
        drawn, noise = (torch.randn(BASE_BATCH, *moments.shape[2:], generator=generator) for _ in range(2))
        latents = draw_latents(moments[rows], drawn, frozen.base.latent_scale)
        timesteps = torch.randint(1000, (BASE_BATCH,), generator=generator)
        noisy = objective.noisy(latents, noise, timesteps)
        loss = F.mse_loss(unet(noisy, timesteps, empty).sample, noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    unet.save_pretrained(Path(config.model.base) / "unet")
    return found


class RandomStep(Step):
    """The same step, but each batch's image features are noise of the same size."""

    def inputs(self, batch: Batch, time: Tensor | None = None) -> Inputs:
        inputs = super().inputs(batch, time)
        generator, features = torch.Generator().manual_seed(int(batch.uniform[0] * 2**53)), inputs.given.features
        assert features is not None
        return dataclasses.replace(
            inputs, given=Given(torch.randn(features.shape, generator=generator) * features.std())
        )


@torch.no_grad()
def held_out_noise(training: loop.Training, has_prompt: bool = True) -> float:
    """The plain loss of all pictures at noise and timesteps of a seed that no training has; the same in every call."""
    adapter, found, step = training._current(), [], training.training_step
    config = dataclasses.replace(training.config, run=dataclasses.replace(training.config.run, seed=MEASURE))
    shape = step.frozen.base.latent_shape(config.data.resolution)
    loader = open_loader(config, step.frozen.encoder_facts, adapter.spec.feature, latent_shape=shape)
    for number in range(ROUNDS):
        for batch in loader._load([[(number, position) for position in range(NUMBER)]]):
            inputs = step.inputs(batch)
            image = adapter_output(adapter, inputs.given) if has_prompt else AdapterOutput({})
            found.append(losses(step.frozen.base, step.objective, inputs, image).mean())
    return float(torch.stack(found).mean())


def train_adapter(config: Config, kind: type[Step]) -> tuple[float, float, float]:
    """Held-out loss of the base alone, of the adapter at the start, and after the training."""
    parallel = start(config)
    with Stop() as stop:
        training = loop.Training(config, run.start(config), parallel, stop)
        training.training_step = kind(**vars(training.training_step))
        base, first = held_out_noise(training, has_prompt=False), held_out_noise(training)
        training.go()
        last = held_out_noise(training)
        training.close()
    return base, first, last


@pytest.mark.slow
@pytest.mark.all_threads
def test_the_loss_falls_further_than_with_random_features(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures")
    config = runs.tiny_config(
        tmp_path,
        data={"source": str(data), "drop_text": 0.0, "drop_image": 0.0, "drop_both": 0.0},
        run={"steps": STEPS, "batch_size": BATCH, "save_every_steps": STEPS},
        optimiser={"learning_rate": 3e-3},
    )
    torch.manual_seed(0)
    write_autoencoder(Path(config.model.base) / "vae", data)
    of_base = train_base(config)
    print(
        f"\nbase: loss {sum(of_base[:20]) / 20:.4f} -> {sum(of_base[-50:]) / 50:.4f} "
        f"in {BASE_STEPS} steps of {BASE_BATCH}",
        flush=True,
    )
    assert sum(of_base[-50:]) / 50 < 0.6 * sum(of_base[:20]) / 20

    table: dict[str, list[float]] = {"pictures": [], "random": []}
    print("| features | seed | base alone | step 0 | last step |\n|---|---|---|---|---|")
    for name, kind in (("pictures", Step), ("random", RandomStep)):
        for seed in SEEDS:
            place = dataclasses.replace(config.run, seed=seed, folder=str(tmp_path / f"{name}{seed}"))
            base, first, last = train_adapter(dataclasses.replace(config, run=place), kind)
            table[name].append(last)
            print(f"| {name} | {seed} | {base:.4f} | {first:.4f} | {last:.4f} |", flush=True)
            assert last < first
    spread = max(max(values) - min(values) for values in table.values())
    gain = min(table["random"]) - max(table["pictures"])
    print(f"the pictures' features are better by {gain:.4f} at least, the spread of {len(SEEDS)} seeds is {spread:.4f}")
    assert gain > spread
    assert max(table["pictures"]) < base


def test_install_keeps_the_base_when_there_is_no_prompt() -> None:
    unet = tiny_models.tiny_unet().eval()
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 77, tiny_models.CONTEXT)
    with torch.no_grad():
        before = unet(x, 10, text).sample
        install(unet)
        after = unet(x, 10, text).sample
    assert torch.allclose(before, after, atol=1e-6)
