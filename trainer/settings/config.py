"""What a training is, as frozen values: one TOML file, one section for each owner.

[model] the frozen parts      [adapter] what is trained     [data] pictures, captions, drops
[cache] how it is made        [optimiser] how it is trained
[run] where, how long, on what, and what is written
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ModelConfig:
    """The frozen parts."""

    base: str = ""  # a diffusers folder, or a single checkpoint file (.safetensors, .ckpt) as ComfyUI uses it
    base_config: str = (
        ""  # for a single file: a diffusers folder of the same layout (its JSON files suffice); "" = by its keys
    )
    variant: str = ""  # of a diffusers folder's weight files, e.g. "fp16"; "" = the plain ones
    vae: str = ""  # another autoencoder (diffusers folder or file); "" = the base's own
    encoder: str = "ViT-H-14/laion2b_s32b_b79k"  # open_clip architecture/tag, a weights file, or a transformers folder
    encoder_architecture: str = ""  # open_clip's name, for a weights file; "" = known by its widths
    # what the base predicts: noise, velocity, the picture, or a flow; auto = as the base's scheduler says
    prediction: Literal["auto", "epsilon", "v_prediction", "sample", "flow"] = "auto"


@dataclass(frozen=True)
class AdapterConfig:
    """What is trained. 0 = the published value of the family and base."""

    family: str = "base"  # plus, full-face, FaceID, FaceID plus; plus-face is plus, with face crops
    num_tokens: int = 0  # image tokens; for "plus" the learned queries (base 4, plus 16, FaceID 4)
    width: int = 0  # of the resampler of "plus" (SD1.5 768, SD2 1024, SDXL 1280)
    depth: int = 0  # of the resampler (4)
    lora_rank: int = 0  # of FaceID's LoRA for the base's attention (128); other families have none
    shortcut: bool = True  # of FaceID plus: true = v2, the identity's tokens are added to the resampled ones
    start_from: str = ""  # a published adapter file to continue from
    # appended: the paper's comparison, the "simple adapter" (section 4.4.2): tokens after the text's, through the
    # base's own frozen K and V; only the projection is trained, and no other program runs the file
    attention: Literal["decoupled", "appended"] = "decoupled"
    licence: str = ""  # written into the adapter's metadata


@dataclass(frozen=True)
class SetConfig:
    """One of several data sets: an element of data.sets, [[data.sets]] in the file."""

    source: str = ""  # as data.source
    repeats: int = 1  # times that each of its samples comes in an epoch
    prefix: str = ""  # before each of its captions, as it stands
    suffix: str = ""  # after it
    format: Literal["auto", "json", "jsonl", "folder", "webdataset", "huggingface"] = "auto"
    pictures: str = ""  # as data.pictures


@dataclass(frozen=True)
class DataConfig:
    """Pictures, captions, and how they are drawn."""

    source: str = ""
    sets: tuple[SetConfig, ...] = ()  # several sources in place of one
    format: Literal["auto", "json", "jsonl", "folder", "webdataset", "huggingface"] = "auto"
    pictures: str = ""  # folder that the names in a list are relative to; "" = the list's own folder
    image_column: str = ""  # "" = image_file (lists), jpg/png/webp (shards), image (Hugging Face)
    caption_column: str = ""  # "" = text, caption; a column with a list gives several captions for a picture
    condition_column: str = ""  # the picture that the encoder sees where it differs from the target; "" = the target
    identity_column: str = ""  # faces' identities, raw from ArcFace: 512 numbers, or a .npy or .safetensors file's name
    resolution: int = 512  # shortest side, then the crop
    crop: Literal["centre", "random"] = "centre"
    draft: bool = False  # large JPEG files are decoded at 1/2 to 1/8, to no less than twice what is seen
    flip: bool = False  # half of the pictures are seen mirrored, target and condition alike
    shuffle_tags: bool = False  # a caption's parts between commas come in another order each time
    keep_tags: int = 0  # of them, the first so many stay where they are
    min_side: int = 64  # smaller pictures are skipped and reported
    held_out: int = 0  # samples kept out of the training, for the validation loss
    workers: int = 2  # loader processes of each training process
    cache: str = ""  # folder of the cache; "" = none
    drop_text: float = 0.05  # the three are exclusive events
    drop_image: float = 0.05
    drop_both: float = 0.05


@dataclass(frozen=True)
class CacheConfig:
    """How a cache is made; nothing of it changes what is in it."""

    batch_size: int = 0  # pictures and texts that are encoded at once; 0 = by the resolution: 16 at 512 px
    workers: int = 0  # processes that decode pictures; 0 = data.workers


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser and the loss, by default as in the paper.

    A config that leaves out learning_rate, betas or epsilon gets the optimiser's own (`settings/optimisers.py`).
    """

    name: Literal["adamw", "adamw8bit", "lion", "prodigy", "adafactor"] = "adamw"
    learning_rate: float = 1e-4  # prodigy: a factor of the rate that it finds, 1; adafactor: relative to the weights
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.999)  # adafactor has none: []
    epsilon: float = 1e-8  # lion and adafactor have none: 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    clip: float = 0.0  # largest gradient norm; 0 = no clipping
    accumulation: int = 1  # batches for one optimiser step
    eight_bit: bool = False  # the older word for name = "adamw8bit"
    ema: float = 0.0  # decay of the adapter's moving average, e.g. 0.9999; 0 = none
    noise_offset: float = 0.0
    timesteps: Literal["uniform", "snr"] = "uniform"  # snr: noisy timesteps more often; a flow's are logit-normal
    loss_weighting: Literal["none", "min_snr", "snr"] = "none"
    min_snr_gamma: float = 5.0


@dataclass(frozen=True)
class RunConfig:
    """Where, how long, on what, and what is written."""

    folder: str = ""
    seed: int = 0
    steps: int = 1_000_000  # optimiser steps
    batch_size: int = 8  # samples of one process in one batch
    processes: int = 1
    device: Literal["auto", "cuda", "cpu", "mps"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the frozen parts; trained weights stay in fp32
    parallel: Literal["none", "ddp", "zero1", "zero2", "zero3"] = "none"
    offload_optimiser: bool = False  # DeepSpeed: optimiser state in the CPU's memory
    gradient_checkpointing: bool = False
    # how the base's forward and backward run: plain, one CUDA graph, or compiled blocks in one; auto says what it chose
    engine: Literal["auto", "plain", "graph", "compiled"] = "auto"
    save_every_steps: int = 10_000  # 0 = at the end and when asked to stop
    keep_last: int = 3  # checkpoints; 0 = all
    keep_every_steps: int = 100_000  # these are never removed; 0 = none
    keep_best: bool = False  # save where the held-out loss is the lowest so far, and keep that checkpoint
    log_every_steps: int = 10  # 0 = never
    validate_every_steps: int = 1_000  # 0 = never
    sample_every_steps: int = 5_000  # 0 = never
    sample_prompts: tuple[str, ...] = ("best quality, high quality",)
    sample_weights: tuple[float, ...] = (0.5, 1.0)
    sample_pictures: int = 4  # rows of the grid, references from the held-out (or the first) samples
    sample_steps: int = 30
    score_encoder: str = ""  # CLIP for CLIP-I and CLIP-T on the grid, as model.encoder; "" = no scores
    trackers: tuple[str, ...] = ("tensorboard",)  # tensorboard, wandb
    project: str = "ip-adapter"  # W&B's project


@dataclass(frozen=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    data: DataConfig = field(default_factory=DataConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def samples_per_step(self) -> int:
        """The global batch: samples of one optimiser step, over all processes and accumulated batches."""
        return self.run.batch_size * self.run.processes * self.optimiser.accumulation

    @property
    def hash(self) -> str:
        """16 hex digits of everything that shapes what is trained."""
        return hashlib.sha256(json.dumps(fixed_values(self), sort_keys=True).encode()).hexdigest()[:16]


# What may change when a run is resumed; everything else is what the run *is*.
FREE = {
    "data": {"workers", "cache", "pictures"},
    "cache": {"batch_size", "workers"},
    "optimiser": {"accumulation"},  # with batch_size and processes: only their product counts
    "run": {f.name for f in dataclasses.fields(RunConfig)} - {"seed", "precision"},
}


SETS = "data.sets"


def fixed_values(config: Config) -> dict[str, Any]:
    """Every value that must be the same when a run goes on, by "section.key"."""
    flat = {
        f"{section}.{key}": value
        for section, values in tables(config).items()
        for key, value in values.items()
        if key not in FREE.get(section, ())
    }
    # of a set's source what is in it counts, as of data.source: a checkpoint knows the data's content
    sets = [{key: value for key, value in one.items() if key not in ("source", "pictures")} for one in flat[SETS]]
    return flat | {SETS: sets, "samples per step": config.samples_per_step}


def tables(config: Config) -> dict[str, dict[str, Any]]:
    """A config as the nested values that `parse` reads."""
    return {
        section: {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        for section, values in dataclasses.asdict(config).items()
    }


def rescale(config: Config, processes: int) -> Config:
    """The same training on another number of processes: as many samples in a step, batches no larger than before.

    Raises ValueError when the samples of a step cannot be shared out evenly.
    """
    total = config.samples_per_step
    if total % processes:
        raise ValueError(
            f"a step of {total} samples cannot be shared by {processes} processes: choose a divisor of {total}"
        )
    share = total // processes
    batch_size = max(size for size in range(1, min(share, config.run.batch_size) + 1) if share % size == 0)
    parallel = "ddp" if config.run.parallel == "none" and processes > 1 else config.run.parallel
    return dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, processes=processes, batch_size=batch_size, parallel=parallel),
        optimiser=dataclasses.replace(config.optimiser, accumulation=share // batch_size),
    )
