"""Which values of a config go together."""

from __future__ import annotations

from .config import Config, DataConfig, OptimiserConfig
from .families import TRAINED, trained_family
from .optimisers import check_optimiser
from .ranges import FROM_ONE, check_number, check_ranges

NOT_CACHED = {"flip": "a picture", "shuffle_tags": "a text"}


def check(config: Config) -> None:
    """Raises ValueError for values out of range, and for values that exclude each other."""
    _check_ranges(config)
    _check_sets(config.data)
    check_optimiser(config)
    _check_parallel(config)
    if config.model.prediction == "flow":
        check_flow(config.optimiser)
    _check_family(config)


def _check_ranges(config: Config) -> None:
    check_ranges(config)
    drops = (config.data.drop_text, config.data.drop_image, config.data.drop_both)
    if sum(drops) > 1:
        raise ValueError(
            f"data.drop_text, drop_image and drop_both = {list(drops)} must be 1 or less together: "
            "they are exclusive events"
        )
    if config.data.resolution % 8:
        raise ValueError(
            f"data.resolution = {config.data.resolution} should be a multiple of 8, the autoencoder's cell"
        )
    if config.run.keep_best and not (config.data.held_out and config.run.validate_every_steps):
        raise ValueError(
            "run.keep_best goes by the held-out loss: set data.held_out and run.validate_every_steps, or leave it off"
        )
    for tracker in config.run.trackers:
        if tracker not in ("tensorboard", "wandb"):
            raise ValueError(f"unknown tracker {tracker!r} in run.trackers: choose among tensorboard and wandb")


def _check_sets(data: DataConfig) -> None:
    for number, one in enumerate(data.sets):
        check_number(f"repeats of data.sets[{number}]", one.repeats, FROM_ONE)
        if not one.source:
            raise ValueError(f"data.sets[{number}] has no source: give it a JSON list, a folder, shards or the like")
    if data.sets and data.source:
        raise ValueError(
            f'data.source = {data.source!r} and data.sets exclude each other: make it one of the sets, or set it to ""'
        )
    if data.keep_tags and not data.shuffle_tags:
        raise ValueError(
            f"data.keep_tags = {data.keep_tags} keeps tags where they are while others are shuffled, and "
            "data.shuffle_tags is false: set it to true, or data.keep_tags to 0"
        )
    if data.cache and (key := next((key for key in NOT_CACHED if getattr(data, key)), None)):
        raise ValueError(
            f"data.{key} changes {NOT_CACHED[key]} each time it is seen, and a cache holds one result of it: set it to "
            "false, or clear data.cache"
        )


def _check_parallel(config: Config) -> None:
    if config.run.parallel == "none" and config.run.processes > 1:
        raise ValueError(
            f"run.processes = {config.run.processes} needs run.parallel: choose ddp, zero1, zero2 or zero3"
        )
    is_zero = config.run.parallel.startswith("zero")
    if config.run.offload_optimiser and not is_zero:
        raise ValueError(
            "run.offload_optimiser is DeepSpeed's: set run.parallel to zero1, zero2 or zero3, or leave it off"
        )
    if config.optimiser.ema and is_zero and (config.run.parallel == "zero3" or config.run.precision == "fp16"):
        raise ValueError(
            "optimiser.ema needs whole fp32 weights on each process: choose zero1 or zero2 with fp32 or bf16, or ddp"
        )


def check_flow(settings: OptimiserConfig) -> None:
    """Raises ValueError for values that a flow base has no use for: it has no table of signal-to-noise ratios."""
    for key, neutral in (("timesteps", "uniform"), ("loss_weighting", "none")):
        if (value := getattr(settings, key)) != neutral:
            raise ValueError(
                f"optimiser.{key} = {value!r} weighs by a table of signal-to-noise ratios, and the base is a flow, "
                f'which has none: set it to "{neutral}"'
            )


# Values of [adapter] that shape some families alone.
SHAPES = ("num_tokens", "width", "depth", "lora_rank")


def _check_family(config: Config) -> None:
    adapter = config.adapter
    family, training = trained_family(adapter.family)
    for key in SHAPES:
        value, families = getattr(adapter, key), [name for name in TRAINED if key in trained_family(name)[1].shaped_by]
        if value and key not in training.shaped_by:
            raise ValueError(
                f"adapter.{key} = {value} shapes {', '.join(families)}, and adapter.family is {adapter.family}: "
                "set it to 0, or leave it out"
            )
        if value < 0:
            raise ValueError(f"adapter.{key} = {value} should be 1 or more, or 0 for the published value")
    if family.identity and not config.data.identity_column:
        raise ValueError(
            f"adapter.family = {adapter.family!r} reads faces' identities: set data.identity_column to where the data "
            "has ArcFace's 512 numbers of each face (insightface calls them embedding)"
        )
    if training.lora_rank and adapter.attention == "appended":
        raise ValueError(
            f'adapter.attention = "appended" trains the projection alone, and {adapter.family} a LoRA as well: '
            'choose "decoupled", or the family base or plus'
        )
