"""Two parts of a run that say what they are as they are made: its loader, and its step."""

from __future__ import annotations

import logging

from ipadapter_core import AdapterSpec

from ..base.frozen import Frozen
from ..data.loader import Loader, open_loader
from ..data.sources import describe_source
from ..settings.config import Config
from ..step.engine import Kind, Plain, build_engine, choose_engine
from ..step.objective import Objective
from ..step.step import Step
from .parallel.plain import Parallel

logger = logging.getLogger(__name__)


def make_loader(config: Config, frozen: Frozen, spec: AdapterSpec, parallel: Parallel) -> Loader:
    """The batches of this process. Raises ValueError when the data cannot be opened, or a cache does not fit."""
    facts, shape = frozen.encoder_facts if spec.feature else None, frozen.base.latent_shape(config.data.resolution)
    loader = open_loader(config, facts, spec.feature, parallel.rank, parallel.num_processes, shape)
    for line in describe_source(loader.source) if parallel.is_main else ():
        logger.info("%s", line)
    zero = loader.zero_features()
    if spec.feature == "penultimate" and zero is not None:
        frozen.zero_states_are(zero)
    return loader


def make_step(
    config: Config, frozen: Frozen, objective: Objective, spec: AdapterSpec, parallel: Parallel
) -> tuple[Step, Kind]:
    """The step of a prepared adapter, and which engine runs it."""
    kind, said = choose_engine(config, parallel.device, spec.has_lora)
    if parallel.is_main:
        logger.info("%s", said)
    one_pass = Plain(frozen.base, objective, parallel.trained.by_layer)
    return Step(frozen, objective, spec, build_engine(kind, one_pass)), kind
